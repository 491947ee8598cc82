"""What training gives: the difference to the model it began from, and how much data stands behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ucadi.errors import FormatError, MismatchError

Arrays = Mapping[str, npt.NDArray[np.float32]]
"""The floating-point tensors of a model's state by name: parameters and batch-norm statistics alike."""

PIECE = 1 << 18
"""Values worked at a time, so that what is held beside a model does not grow with it."""


@dataclass(frozen=True)
class Privacy:
    """What a differentially private training has spent of a site's cases since the federation's first epoch:
    (epsilon, delta), for one scan more or less."""

    epsilon: float
    delta: float
    noise: float
    clip_norm: float


@dataclass(frozen=True)
class Update:
    """One site's contribution to a round.

    `base` is the digest of the weights file that training began from; `examples` the number of CTs that
    were trained on and `epochs` how often: their product weighs the update (paper, Methods). `deltas` are
    trained minus base, float32. `plan` is the digest of the plan that it was trained under, if there was one: an update
    belongs to one round alone.
    """

    site: str
    base: str
    examples: int
    epochs: int
    deltas: Arrays
    privacy: Privacy | None = None
    plan: str | None = None

    @property
    def weight(self) -> int:
        """Examples times local epochs: the weight of this update in the average."""
        return self.examples * self.epochs


def difference(trained: Arrays, base: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """Trained minus base, tensor by tensor, in float32; NaN and infinity are refused."""
    if trained.keys() != base.keys():
        raise MismatchError("the trained model and its base have different tensors")
    deltas = {name: np.subtract(trained[name], base[name], dtype=np.float32) for name in sorted(trained)}
    check_finite(deltas)
    return deltas


def learned_norm(deltas: Arrays) -> float:
    """The Euclidean norm of all values together, in float64, but for the norms' statistics, which are averaged."""
    squares = (float(np.square(piece, dtype=np.float64).sum()) for piece in _learned_pieces(deltas))
    return math.sqrt(math.fsum(squares))


def bounded(deltas: Arrays, bound: float) -> dict[str, npt.NDArray[np.float32]]:
    """The deltas scaled so that their `learned_norm` is at most `bound`; the norms' statistics stay as they are."""
    factor = min(1.0, bound / max(learned_norm(deltas), np.finfo(np.float64).tiny))
    return {
        name: delta if is_statistic(name) else (delta * np.float64(factor)).astype(np.float32)
        for name, delta in deltas.items()
    }


def is_statistic(name: str) -> bool:
    """Whether a tensor is a norm's running statistic: observed, not learned."""
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def _learned_pieces(deltas: Arrays) -> Iterator[npt.NDArray[Any]]:
    for name in sorted(deltas):
        if not is_statistic(name):
            yield from in_pieces(deltas[name])


def in_pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """An array's values in order, in runs of at most PIECE; views of the array where it lies in one piece."""
    values = array.reshape(-1)
    for start in range(0, len(values), PIECE):
        yield values[start : start + PIECE]


def added(base: npt.NDArray[np.float32], change: Iterable[npt.NDArray[np.floating]]) -> npt.NDArray[np.float32]:
    """One tensor plus its change, which is given in pieces: in float64, rounded once."""
    following = np.empty_like(base, order="C")
    for before, piece, after in zip(in_pieces(base), change, in_pieces(following), strict=True):
        after[:] = before.astype(np.float64) + piece
    return following


def check_finite(arrays: Arrays) -> None:
    """Raises FormatError, naming the tensor, where a value is NaN or infinite."""
    for name, array in arrays.items():
        if not all(np.isfinite(piece).all() for piece in in_pieces(array)):
            raise FormatError(f"tensor {name} holds NaN or infinity", hint="training diverged: lower the learning rate")
