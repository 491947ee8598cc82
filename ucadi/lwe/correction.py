"""Opening shares of which some are wrong: who holds them is found, and the secret is that of the others.

Shares of one coefficient are a word of a Reed-Solomon code over the prime field: with a shares of which t suffice, up
to (a - t) / 2 wrong ones are located for certain, by the syndromes and Berlekamp and Massey's algorithm (Massey, IEEE
Transactions on Information Theory 1969). A holder's place is the same in all 4,096 words, so a holder found in one
word is left out of all. Beyond that, sets of t shares are tried against what the ciphertext itself says of a secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ucadi.lwe import shamir
from ucadi.lwe.ring import Secret
from ucadi.lwe.shamir import PRIME, Share

MOST_SETS = 5000
"""Sets of t shares that are tried, of a millisecond each: all of up to 14 shares."""

_Word = npt.NDArray[np.int64]
"""Numbers modulo the prime, (n,)."""


@dataclass(frozen=True)
class Recovered:
    """A secret, and the places from 0 of the holders whose shares are wrong for certain."""

    secret: Secret
    wrong: tuple[int, ...]


def recover(shares: Mapping[int, Share], threshold: int, opens: Callable[[Secret], bool]) -> Recovered | None:
    """The secret that at least `threshold` of the shares are of and that `opens` the ciphertext; None if none is found.

    `shares` are by the holders' place from 0. With a of them it is found if up to (a - threshold) / 2 are wrong,
    whoever conspires, and if up to a - threshold are, where there are no more than `MOST_SETS` sets to try. Then liars
    can have another polynomial of the same secret with an honest holder: no share of either is called wrong.
    """
    sound = {place: share for place, share in shares.items() if (share < PRIME).all()}
    if len(sound) < threshold:
        return None
    wrong = locate(sound, threshold)
    if wrong is not None:
        right = {place: share for place, share in sound.items() if place not in wrong}
        secret = shamir.combine(right, threshold)
        if opens(secret):
            return Recovered(secret, _without(shares, right))
    found: Secret | None = None
    agreeing = set[int]()
    if len(sound) > threshold and is_exhaustive(len(sound), threshold):
        for places in combinations(sorted(sound), threshold):
            secret = shamir.combine({place: sound[place] for place in places}, threshold)
            if opens(secret):
                found = secret
                agreeing |= {
                    p for p, share in sound.items() if (shamir.interpolate(sound, places, p + 1) == share).all()
                }
    return None if found is None else Recovered(found, _without(shares, agreeing))


def is_exhaustive(shares: int, threshold: int) -> bool:
    """Whether `recover` tries all sets of so many shares: then any `threshold` right ones suffice."""
    return math.comb(shares, threshold) <= MOST_SETS


def locate(shares: Mapping[int, Share], threshold: int) -> tuple[int, ...] | None:
    """The places of the wrong shares, where no more than (a - threshold) / 2 of a are; None where there are more."""
    kept, wrong = sorted(shares), list[int]()
    most = (len(kept) - threshold) // 2
    while True:
        syndromes = _syndromes(shares, kept, threshold)
        off = np.flatnonzero(syndromes.any(axis=0))
        if not len(off):
            return tuple(sorted(wrong))
        found = _errors(syndromes[:, off[0]], kept)
        wrong += found
        if not found or len(wrong) > most:
            return None
        kept = [place for place in kept if place not in found]


def _without(shares: Iterable[int], right: Container[int]) -> tuple[int, ...]:
    return tuple(sorted(place for place in shares if place not in right))


def _syndromes(shares: Mapping[int, Share], places: list[int], threshold: int) -> npt.NDArray[np.int64]:
    """(a - threshold, 4096): the sums of share * column multiplier * point^k, all zero if the shares agree.

    The products are exact in float64, where they are fastest: a sum of 65,521 holders' would stay below 2^48.
    """
    points = np.array(places, dtype=np.int64) + 1
    below = np.ones_like(points)
    for point in points:
        below = below * np.where(points == point, 1, points - point) % PRIME
    row = np.array([pow(int(value), -1, PRIME) for value in below], dtype=np.int64)
    rows = np.empty((len(places) - threshold, len(places)))
    for k in range(len(rows)):
        rows[k] = row
        row = row * points % PRIME
    words = np.stack([shares[place] for place in places]).astype(np.float64)
    return np.asarray((rows @ words) % PRIME, dtype=np.int64)


def _errors(syndromes: _Word, places: list[int]) -> list[int]:
    """The places that are wrong in a word with these syndromes; none where they are too many to be found."""
    locator = _shortest_recurrence([int(value) for value in syndromes])
    points = np.array(places, dtype=np.int64) + 1
    values = np.zeros_like(points)
    for coefficient in locator:  # reversed, its roots are the points themselves
        values = (values * points + coefficient) % PRIME
    found = [place for place, value in zip(places, values, strict=True) if value == 0]
    return found if len(found) == len(locator) - 1 <= len(syndromes) // 2 else []


def _shortest_recurrence(sequence: list[int]) -> list[int]:
    """Coefficients c, c[0] = 1, of the shortest recurrence, the sum of c[j] * sequence[k - j] = 0."""
    current, previous = [1], [1]
    length, gap, last = 0, 1, 1
    for k in range(len(sequence)):
        off = sum(c * sequence[k - j] for j, c in enumerate(current) if j <= k) % PRIME
        if off == 0:
            gap += 1
            continue
        factor = off * pow(last, -1, PRIME) % PRIME
        changed = current + [0] * (len(previous) + gap - len(current))
        for j, c in enumerate(previous):
            changed[j + gap] = (changed[j + gap] - factor * c) % PRIME
        if 2 * length <= k:
            length, previous, last, gap = k + 1 - length, current, off, 1
        else:
            gap += 1
        current = changed
    return current[: length + 1] + [0] * (length + 1 - len(current))
