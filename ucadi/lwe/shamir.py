"""Shares of a secret polynomial: any t of n holders together have it, fewer have nothing.

Each coefficient s is shared for itself (Shamir, CACM 1979): the holders get the values at 1, 2, ..., n of a
random polynomial of degree t - 1 modulo the prime 65521 whose value at 0 is s. Shares add: sums of shares
are shares of the sum. The prime has room for a sum of 1,023 secrets, and a share of a coefficient is 16 bits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ucadi.lwe.parameters import DEGREE, MAX_SUMMANDS, NOISE_BOUND
from ucadi.lwe.ring import Secret

PRIME = 65521
"""The largest prime of 16 bits."""

SHARE_BYTES = 2 * DEGREE

Share = npt.NDArray[np.uint16]
"""One holder's share of one secret, or the sum of its shares of several; little-endian, shape (4096,)."""

assert 2 * NOISE_BOUND * MAX_SUMMANDS < PRIME


def split(secret: Secret, holders: int, threshold: int) -> npt.NDArray[np.uint16]:
    """Shares for `holders` holders, (holders, 4096), of which any `threshold` give the secret."""
    if not 1 <= threshold <= holders < PRIME:
        raise ValueError(f"no {threshold} of {holders} holders")
    coefficients = np.concatenate([[secret % PRIME], _uniform(threshold - 1)])
    shares = np.zeros((holders, DEGREE), dtype=np.int64)
    points = np.arange(1, holders + 1)[:, np.newaxis]
    for coefficient in coefficients[::-1]:  # Horner's rule
        shares = (shares * points + coefficient) % PRIME
    return shares.astype("<u2")


def add(shares: npt.NDArray[np.uint16]) -> Share:
    """One holder's share of the sum of several secrets, from its shares (secrets, 4096) of each."""
    total: Share = (shares.sum(axis=0, dtype=np.int64) % PRIME).astype("<u2")
    return total


def combine(shares: Mapping[int, Share], threshold: int) -> Secret:
    """The secret, or sum of secrets, from the shares of `threshold` holders by their place from 0.

    Of more, the first places are taken, and nothing is compared: see `ucadi.lwe.correction`.
    """
    places = sorted(shares)[:threshold]
    if len(places) < threshold:
        raise ValueError(f"{len(places)} shares, {threshold} are needed")
    value = interpolate(shares, places, 0)
    centred: Secret = np.where(value > PRIME // 2, value - PRIME, value)
    return centred


def interpolate(shares: Mapping[int, Share], places: Sequence[int], x: int) -> npt.NDArray[np.int64]:
    """The value at x of the polynomials through the shares of `places`, which lie at place + 1 (Lagrange)."""
    total = np.zeros(DEGREE, dtype=np.int64)
    points = [place + 1 for place in places]
    for place, point in zip(places, points, strict=True):
        above = below = 1
        for other in points:
            if other != point:
                above, below = above * (x - other) % PRIME, below * (point - other) % PRIME
        weight = above * pow(below, -1, PRIME) % PRIME
        total = (total + weight * shares[place].astype(np.int64)) % PRIME
    return total


def _uniform(count: int) -> npt.NDArray[np.int64]:
    """Numbers modulo the prime from the operating system's randomness, (count, 4096), without bias."""
    needed = count * DEGREE
    drawn = np.empty(0, dtype="<u2")
    while len(drawn) < needed:
        fresh = np.frombuffer(os.urandom(2 * (needed - len(drawn))), dtype="<u2")
        drawn = np.concatenate([drawn, fresh[fresh < PRIME]])
    return drawn.astype(np.int64).reshape(count, DEGREE)
