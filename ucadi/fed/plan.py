"""The plan of a round: everything that its sites must agree on before they train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ucadi.errors import UsageError
from ucadi.fed.fixedpoint import Layout
from ucadi.fed.optimisers import FEDAVG, ServerOptimiser
from ucadi.labels import LOSS_WEIGHTS

KeyMode = Literal["members", "threshold"]

Precision = Literal["float32", "bfloat16"]
"""Of the arithmetic of training; weights are float32 always. bfloat16 is fast only where the processor knows it."""


@dataclass(frozen=True)
class Schedule:
    """What a site does in its round: the hyper-parameters that all sites share.

    The learning rate runs over `total_epochs` of all rounds together, not anew in each. The defaults are
    the paper's (Methods). `proximal` is FedProx's mu; `clip_norm` bounds the gradient's norm in each step and
    `update_norm` that of the whole update; `balanced` draws each diagnosis equally often; `augment` moves and
    turns each slab a little. A `noise` above zero makes the training differentially private: each case's
    gradient is bounded by `clip_norm`, and noise of that many times the bound added; what is spent is told
    for `delta`.
    """

    local_epochs: int = 1
    total_epochs: int = 100
    warmup_epochs: int = 5
    learning_rate: float = 0.01
    batch_size: int = 16
    drop_rate: float = 0.1
    seed: int = 0
    precision: Precision = "float32"
    momentum: float = 0.9
    weight_decay: float = 0.0
    loss_weights: tuple[float, ...] = LOSS_WEIGHTS
    proximal: float = 0.0
    clip_norm: float | None = None
    update_norm: float | None = None
    balanced: bool = False
    augment: bool = False
    noise: float = 0.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))  # JSON knows lists only
        if not 1 <= self.local_epochs <= self.total_epochs:
            raise UsageError(
                f"{self.local_epochs} local epochs in a schedule of {self.total_epochs} in total",
                hint="local_epochs (--local-epochs) is from 1 to total_epochs (--total-epochs)",
            )
        if self.batch_size < 2:
            raise UsageError(f"batches of {self.batch_size}", hint="batch_size is 2 or more")
        if self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"no precision {self.precision!r}", hint="float32 or bfloat16")
        if self.update_norm is not None and not 0 < self.update_norm < math.inf:
            raise UsageError(f"update_norm is {self.update_norm}", hint="it must be above zero, or not given")
        if not 0 <= self.noise < math.inf or not 0 < self.delta < 1:
            raise UsageError("noise is zero or more, and delta between 0 and 1")
        if self.noise and self.clip_norm is None:
            raise UsageError("noise is in multiples of clip_norm, which is not given", hint="clip_norm = 1.0, perhaps")


@dataclass(frozen=True)
class Plan:
    """One round of one federation. `base` and `roster` are digests of files, `sites` the names admitted.

    `weight_cap` is the largest examples x local epochs that any site may have; `quorum` the fewest
    contributions that make a round; `server` what makes the next model of the mean.
    """

    federation: str
    round: int
    base: str
    roster: str
    mode: KeyMode
    sites: tuple[str, ...]
    quorum: int
    weight_cap: int
    layout: Layout
    schedule: Schedule
    server: ServerOptimiser = FEDAVG

    def __post_init__(self) -> None:
        if self.round < 1 or list(self.sites) != sorted(set(self.sites)) or not self.sites:
            raise UsageError("a plan needs a round number from 1 and at least one site, each once")
        if not 1 <= self.quorum <= len(self.sites):
            raise UsageError(f"quorum {self.quorum} of {len(self.sites)} sites", hint="at least 1, at most all")
        if self.weight_cap < 1:
            raise UsageError("the weight cap must be at least 1")

    @property
    def shares_norms(self) -> bool:
        """Whether the norms are averaged too, and not kept by each site (FedBN)."""
        return self.layout.shares_norms

    @property
    def first_epoch(self) -> int:
        """The epoch of the whole schedule at which this round's training begins, from 0."""
        return (self.round - 1) * self.schedule.local_epochs
