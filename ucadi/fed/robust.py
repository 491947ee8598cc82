"""Averages that a minority of faulty updates cannot move far. They need the updates in the clear.

Each site counts alike here: a weight that a site may choose would be a way to a majority. The results do not
depend on the order of the updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ucadi.errors import UsageError
from ucadi.fed.averaging import Sum, as_sum
from ucadi.fed.fixedpoint import Encoder, Layout
from ucadi.fed.update import Update, in_pieces
from ucadi.plugins import Registry

MEAN = "mean"

RULES = Registry(
    "ucadi.rules",
    "rule",
    {
        "median": "ucadi.fed.robust:median",
        "trimmed-mean": "ucadi.fed.robust:trimmed_mean",
        "krum": "ucadi.fed.robust:krums_choice",
    },
)
"""The rules other than the mean, each a `Rule`. Other packages add theirs to the group of entry points."""

Deltas = dict[str, npt.NDArray[np.float32]]

Rule = Callable[[Sequence[Update], int], Deltas]
"""One difference from several, for at most so many faulty updates among them, in whatever order they come.

UsageError where there are too few updates for that many.
"""


def median(updates: Sequence[Update], faulty: int = 0) -> Deltas:
    """The median of each coordinate (Yin et al., ICML 2018), for any minority of faulty updates."""
    del faulty
    return _by_coordinate(updates, lambda values: np.median(values, axis=0))


def trimmed_mean(updates: Sequence[Update], faulty: int) -> Deltas:
    """The mean of each coordinate without its `faulty` smallest and `faulty` largest values (Yin et al., ICML 2018)."""
    count = len(updates)
    if not faulty >= 1 or 2 * faulty >= count:
        raise UsageError(
            f"{count} updates, {faulty} left out at each end",
            hint=f"--max-faulty: 1 to {max(1, (count - 1) // 2)} of {count}",
        )
    return _by_coordinate(updates, lambda values: np.sort(values, axis=0)[faulty:-faulty].mean(axis=0))


def krums_choice(updates: Sequence[Update], faulty: int) -> Deltas:
    """The difference of the one update that Krum chooses."""
    return {name: np.asarray(delta) for name, delta in krum(updates, faulty).deltas.items()}


def krum(updates: Sequence[Update], faulty: int) -> Update:
    """The update whose nearest `count - faulty - 2` others are nearest to it (Blanchard et al., NeurIPS 2017).

    Of equals, the one whose site's name comes first.
    """
    count = len(updates)
    if not faulty >= 1 or count < 2 * faulty + 3:
        raise UsageError(
            f"Krum with {faulty} faulty updates needs {2 * faulty + 3}, here are {count}", hint="--max-faulty 1"
        )
    updates = sorted(updates, key=lambda update: update.site)
    distances = np.zeros((count, count))
    for i, one in enumerate(updates):
        for j, other in enumerate(updates[:i]):
            distances[i, j] = distances[j, i] = _squared_distance(one, other)
    nearest = np.sort(distances, axis=1)[:, 1 : count - faulty - 1]  # the first is the distance to itself
    return updates[int(np.argmin(nearest.sum(axis=1)))]


def norm(update: Update) -> float:
    """The Euclidean norm of an update's difference, all tensors together."""
    pieces = (piece for delta in update.deltas.values() for piece in in_pieces(delta))
    return math.sqrt(sum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces))


def encode(deltas: Deltas, base: str, layout: Layout, *, cap: int, bits: int, clip: bool) -> Sum:
    """A difference in the form of a sum, as if one update of the full weight `cap` had been added."""
    encoder = Encoder(Update("the result", base, cap, 1, deltas), layout, cap=cap, bits=bits, clip=clip)
    return np.concatenate([as_sum(piece) for piece in encoder.pieces()])


def _by_coordinate(
    updates: Sequence[Update], reduce: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
) -> Deltas:
    def reduced(name: str) -> Iterator[npt.NDArray[np.float32]]:
        for pieces in zip(*(in_pieces(update.deltas[name]) for update in updates), strict=True):
            yield reduce(np.stack(pieces).astype(np.float64)).astype(np.float32)

    first = updates[0].deltas
    return {name: np.concatenate(list(reduced(name))).reshape(first[name].shape) for name in first}


def _squared_distance(one: Update, other: Update) -> float:
    total = 0.0
    for name in sorted(one.deltas):
        for a, b in zip(in_pieces(one.deltas[name]), in_pieces(other.deltas[name]), strict=True):
            total += float(np.square(a.astype(np.float64) - b).sum())
    return total
