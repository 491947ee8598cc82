"""The recipe of training (paper, Methods): rates, batches and the order of cases, all without torch.

Every choice follows from (seed, epoch, step), so that an epoch can be run again from any step on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucadi.hyperparameters import Recipe


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate at `epoch`, whole or between: linear warm-up from zero, then a cosine down to zero.

    A schedule that is shorter than its warm-up warms up all the time.
    """
    warmup = min(recipe.warmup_epochs, recipe.total_epochs)
    if epoch < warmup:
        return recipe.learning_rate * epoch / warmup
    rest = recipe.total_epochs - warmup
    done = min((epoch - warmup) / rest, 1.0) if rest else 1.0
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def drop_rate(recipe: Recipe, epoch: float) -> float:
    """DropBlock's rate at `epoch`: from zero, linearly over all epochs (Ghiasi et al. 2018, section 3.3)."""
    return recipe.drop_rate * min(epoch / recipe.total_epochs, 1.0)


@dataclass(frozen=True)
class Step:
    """One step of the optimiser: the cases of its batch, and where in the schedule it stands."""

    seed: int
    """Of all that is drawn at random in it."""
    epoch: int
    number: int
    cases: NDArray[np.intp]
    position: float
    """In epochs. The middle of the step's share: neither the first rate nor the last one is zero."""
    last: bool
    """Of its epoch."""


def steps(recipe: Recipe, epoch: int, labels: Sequence[int], seed: int | None = None) -> list[Step]:
    """The steps of an epoch: an order of the cases, which have these labels, in even parts; by `seed`, or the recipe's.

    Cut at every `batch_size`, 17 cases would be 16 and 1, and the lone one would weigh as much as the
    sixteen and set the batch norm by itself. Even parts are 9 and 8, in as many steps; only where they
    would come down to single cases are there fewer and larger ones. With `noise`, each step takes each case with
    the same probability instead, so that its batch may be of any size.
    """
    seed = recipe.seed if seed is None else seed
    count = steps_an_epoch(recipe, len(labels))
    rng = np.random.default_rng((seed, epoch))
    if recipe.noise:
        parts = [np.flatnonzero(rng.random(len(labels)) < 1 / count) for _ in range(count)]
    else:
        order = _balanced(rng, np.asarray(labels)) if recipe.balanced else rng.permutation(len(labels))
        parts = np.array_split(order, count)
    return [
        Step(seed, epoch, number, part, epoch + (number + 0.5) / count, number == count - 1)
        for number, part in enumerate(parts)
    ]


def steps_an_epoch(recipe: Recipe, cases: int) -> int:
    """How many steps an epoch with that many cases has."""
    count = math.ceil(cases / recipe.batch_size)
    return min(count, max(1, cases // 2))


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
