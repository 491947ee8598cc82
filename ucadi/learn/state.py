"""Where a training stands: all that its next step depends on, as numbers and numpy arrays, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]
"""Tensors by name: float32 arrays on the CPU."""


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch was like: weighted cross-entropy, share of right answers and AUC on the way, before each step.

    The AUC is the mean of the diagnoses', None where none has one. What a validation set gives is measured
    after the epoch, on one sampling a case; None without such a set.
    """

    epoch: int
    loss: float
    accuracy: float
    auc: float | None
    learning_rate: float
    """Of the last step."""
    validation_loss: float | None = None
    validation_auc: float | None = None


@dataclass(frozen=True)
class TrainingState:
    """All that the steps from `next_step` of `next_epoch` on depend on, besides model, data and recipe."""

    next_epoch: int
    arrays: Arrays
    """The model (see `ucadi.learn.networks.registry.state_arrays`)."""
    momentum: Arrays = field(default_factory=dict)
    """The optimiser's velocity by parameter."""
    anchor: Arrays = field(default_factory=dict)
    """The parameters that `Recipe.proximal` pulls to; empty without it."""
    best: Arrays = field(default_factory=dict)
    """The model after the best epoch; empty where none is kept."""
    next_step: int = 0
    losses: tuple[float, ...] = ()
    """Of the steps that `next_epoch` has had."""
    probabilities: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(cases of those steps in their order, classes): what the model said of them."""
    records: tuple[EpochRecord, ...] = ()
    """Of the epochs before."""
    secret_seed: int | None = None
    """What order and noise of a private training come from, instead of the recipe's seed, which others know."""
