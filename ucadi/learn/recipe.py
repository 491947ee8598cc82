"""The recipe of training (paper, Methods): rates, batches and the order of cases, all without torch.

Every choice follows from (seed, epoch, step), so that an epoch can be run again from any step on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucadi.errors import UsageError
from ucadi.labels import LOSS_WEIGHTS


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the paper's, where it gives them. UsageError for impossible numbers.

    Epochs count over the whole of a training, also when a federation spreads it over rounds.
    `drop_rate` is DropBlock's at the end, reached linearly from zero. `proximal` is FedProx's mu (Li et al.
    2020), the pull to the weights at the start; `clip_norm` bounds the gradient's norm. `balanced` draws
    each diagnosis equally often. With `noise` the training is differentially private (see `privacy`).
    `precision` may be "bfloat16": two to three times as fast where the processor multiplies such numbers in
    hardware (AMX, AVX-512 BF16, GPUs), slower elsewhere; weights and their updates stay float32.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 16
    warmup_epochs: int = 5
    total_epochs: int = 100
    loss_weights: tuple[float, ...] = LOSS_WEIGHTS
    drop_rate: float = 0.1
    clip_norm: float | None = None
    proximal: float = 0.0
    balanced: bool = False
    noise: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))  # JSON knows lists only
        for name, value, fits, wanted in (
            ("learning_rate", self.learning_rate, 0 <= self.learning_rate < math.inf, "zero or more"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "zero or more"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "one or more"),
            ("total_epochs", self.total_epochs, self.total_epochs >= 1, "one or more"),
            ("warmup_epochs", self.warmup_epochs, 0 <= self.warmup_epochs <= self.total_epochs, "at most total_epochs"),
            ("loss_weights", self.loss_weights, all(0 < w < math.inf for w in self.loss_weights), "above zero"),
            ("drop_rate", self.drop_rate, 0 <= self.drop_rate < 1, "from 0 to below 1"),
            ("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "above zero, or none"),
            ("proximal", self.proximal, 0 <= self.proximal < math.inf, "zero or more"),
            ("noise", self.noise, 0 <= self.noise < math.inf, "zero or more"),
            ("precision", self.precision, self.precision in ("float32", "bfloat16"), "float32 or bfloat16"),
            ("seed", self.seed, self.seed >= 0, "zero or more"),
        ):
            if not fits:
                raise UsageError(f"{name} is {value}", hint=f"it must be {wanted}")


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate at `epoch`, whole or between: linear warm-up from zero, then a cosine down to zero."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    rest = recipe.total_epochs - recipe.warmup_epochs
    done = min((epoch - recipe.warmup_epochs) / rest, 1.0) if rest else 1.0
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def drop_rate(recipe: Recipe, epoch: float) -> float:
    """DropBlock's rate at `epoch`: from zero, linearly over all epochs (Ghiasi et al. 2018, section 3.3)."""
    return recipe.drop_rate * min(epoch / recipe.total_epochs, 1.0)


@dataclass(frozen=True)
class Step:
    """One step of the optimiser: the cases of its batch, and where in the schedule it stands."""

    epoch: int
    number: int
    cases: NDArray[np.intp]
    position: float
    """In epochs. The middle of the step's share: neither the first rate nor the last one is zero."""
    last: bool
    """Of its epoch."""


def steps(recipe: Recipe, epoch: int, labels: Sequence[int]) -> list[Step]:
    """The steps of an epoch: an order of the cases, which have these labels, in even parts.

    Cut at every `batch_size`, 17 cases would be 16 and 1, and the lone one would weigh as much as the
    sixteen and set the batch norm by itself. Even parts are 9 and 8, in as many steps; only where they
    would come down to single cases are there fewer and larger ones. With `noise`, each step takes each case with
    the same probability instead, so that its batch may be of any size.
    """
    count = steps_an_epoch(recipe, len(labels))
    rng = np.random.default_rng((recipe.seed, epoch))
    if recipe.noise:
        parts = [np.flatnonzero(rng.random(len(labels)) < 1 / count) for _ in range(count)]
    else:
        order = _balanced(rng, np.asarray(labels)) if recipe.balanced else rng.permutation(len(labels))
        parts = np.array_split(order, count)
    return [
        Step(epoch, number, part, epoch + (number + 0.5) / count, number == count - 1)
        for number, part in enumerate(parts)
    ]


def steps_an_epoch(recipe: Recipe, cases: int) -> int:
    """How many steps an epoch with that many cases has."""
    count = math.ceil(cases / recipe.batch_size)
    return count if recipe.batch_size == 1 else min(count, max(1, cases // 2))


def _balanced(rng: np.random.Generator, labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """As many cases as there are, each diagnosis that has any equally often, up to one.

    Of a diagnosis none is taken again before all have been taken as often.
    """
    kinds = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share, rest = divmod(len(labels), len(kinds))
    wanted = share + (rng.permutation(len(kinds)) < rest)
    taken = [
        np.concatenate([rng.permutation(kind) for _ in range(-(-count // len(kind)))])[:count]
        for kind, count in zip(kinds, wanted, strict=True)
    ]
    return rng.permutation(np.concatenate(taken)).astype(np.intp)
