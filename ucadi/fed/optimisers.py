"""Server optimisers: what the next model makes of the mean difference, as if that were a gradient.

FedAvgM (Hsu, Qi and Brown 2019), FedAdam and FedYogi (Reddi et al., ICLR 2021, algorithm 2). They see the mean only,
so they work on opened sums as on plain ones. All is elementwise in float64 (+, *, /, square root, which IEEE 754
rounds in one way), so every site computes the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ucadi.errors import MismatchError, UsageError
from ucadi.fed.update import Arrays
from ucadi.settings import check_fields, setting

Method = Literal["fedavg", "fedavgm", "fedadam", "fedyogi"]

Piece = npt.NDArray[np.float64]

_LEARNING_RATES: Mapping[str, float] = {"fedavg": 1.0, "fedavgm": 1.0, "fedadam": 0.01, "fedyogi": 0.01}

MEMORIES: Mapping[str, tuple[str, ...]] = {
    "fedavg": (),
    "fedavgm": ("momentum",),
    "fedadam": ("momentum", "variance"),
    "fedyogi": ("momentum", "variance"),
}
"""What each method remembers of every tensor from round to round."""


@dataclass(frozen=True)
class ServerOptimiser:
    """A method with its constants; UsageError for impossible ones."""

    method: Method = setting("fedavg", "How the next model is made of the mean update.", choices=get_args(Method))
    learning_rate: float | None = setting(
        None, "Learning rate of the server.", above=0, unset="1, of adaptive methods 0.01", example=1.0
    )
    momentum: float = setting(0.9, "Momentum: beta, or beta_1.", least=0, below=1)
    decay: float = setting(0.99, "Decay of the variance: beta_2.", least=0, below=1)
    adaptivity: float = setting(
        1e-3, "Tau, which is also the square root of the variance before the first round.", above=0
    )

    def __post_init__(self) -> None:
        check_fields(self, what="server optimiser")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _LEARNING_RATES[self.method])
        if self.method == "fedavg" and self.rate != 1:
            raise UsageError("fedavg adds the mean as it is", hint="fedavgm with a momentum of 0 takes a learning_rate")

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.learning_rate or 0)

    def move(self, mean: Piece, memory: Mapping[str, Piece]) -> tuple[Piece, dict[str, Piece]]:
        """What is added to a run of values whose mean difference is `mean`, and what is remembered for next time."""
        if self.method == "fedavg":
            return mean, {}
        if self.method == "fedavgm":
            momentum = self.momentum * memory["momentum"] + mean
            return self.rate * momentum, {"momentum": momentum}
        momentum = self.momentum * memory["momentum"] + (1 - self.momentum) * mean
        square, variance = mean * mean, memory["variance"]
        if self.method == "fedadam":
            variance = self.decay * variance + (1 - self.decay) * square
        else:
            variance = variance - (1 - self.decay) * square * np.sign(variance - square)
        change = self.rate * momentum / (np.sqrt(variance) + self.adaptivity)
        return change, {"momentum": momentum, "variance": variance}

    def first(self, kind: str) -> float:
        """What a value of that memory is before the first round."""
        return self.adaptivity**2 if kind == "variance" else 0.0


@dataclass(frozen=True)
class Memory:
    """What a method remembers: float32 arrays by `kind/tensor`. Of another method it is as good as nothing."""

    method: str = "fedavg"
    arrays: Arrays = field(default_factory=dict)


FEDAVG = ServerOptimiser()
"""Adds the mean as it is, and remembers nothing."""

FORGETFUL = Memory()
"""What is remembered before the first round."""


class Remembered:
    """An optimiser at work on one tensor after another, in pieces; at the end `memory` is that for the next round."""

    def __init__(self, server: ServerOptimiser, before: Memory) -> None:
        self._server = server
        self._before: Arrays = before.arrays if before.method == server.method else {}
        self.memory = Memory(server.method, {})

    def changes(self, name: str, shape: tuple[int, ...], means: Iterable[Piece]) -> Iterator[Piece]:
        """What is added to the tensor `name`, for the pieces of its mean difference."""
        kinds = MEMORIES[self._server.method]
        before = {kind: self._of(kind, name, shape) for kind in kinds}
        after = {kind: np.empty(shape, np.float32) for kind in kinds}
        self.memory = Memory(self.memory.method, {**self.memory.arrays, **{f"{k}/{name}": after[k] for k in kinds}})
        start = 0
        for mean in means:
            run = slice(start, start + len(mean))
            known = {kind: array.reshape(-1)[run].astype(np.float64) for kind, array in before.items()}
            change, kept = self._server.move(mean, known)
            for kind, values in kept.items():
                after[kind].reshape(-1)[run] = values
            yield change
            start = run.stop

    def _of(self, kind: str, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        if not self._before:
            return np.broadcast_to(np.float32(self._server.first(kind)), shape)
        held = self._before.get(f"{kind}/{name}")
        if held is None or held.shape != shape:
            raise MismatchError(
                f"the weights remember no {kind} of {name}", hint="begin with weights of the same federation"
            )
        return held
