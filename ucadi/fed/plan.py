"""The plan of a round: everything that its sites must agree on before they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ucadi.errors import UsageError
from ucadi.fed.fixedpoint import Layout

KeyMode = Literal["members", "threshold"]

Precision = Literal["float32", "bfloat16"]
"""Of the arithmetic of training; weights are float32 always. bfloat16 is fast only where the processor knows it."""


@dataclass(frozen=True)
class Schedule:
    """What a site does in its round: the hyper-parameters that all sites share.

    The learning rate runs over `total_epochs` of all rounds together, not anew in each. The defaults are
    the paper's (Methods).
    """

    local_epochs: int = 1
    total_epochs: int = 100
    warmup_epochs: int = 5
    learning_rate: float = 0.01
    batch_size: int = 16
    drop_rate: float = 0.1
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.local_epochs < 1 or self.total_epochs < self.local_epochs or self.batch_size < 2:
            raise UsageError("a schedule needs at least one local epoch, as many in total, and batches of two")
        if self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"no precision {self.precision!r}", hint="float32 or bfloat16")


@dataclass(frozen=True)
class Plan:
    """One round of one federation. `base` and `roster` are digests of files, `sites` the names admitted.

    `weight_cap` is the largest examples x local epochs that any site may have; `quorum` the fewest
    contributions that make a round.
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

    def __post_init__(self) -> None:
        if self.round < 1 or list(self.sites) != sorted(set(self.sites)) or not self.sites:
            raise UsageError("a plan needs a round number from 1 and at least one site, each once")
        if not 1 <= self.quorum <= len(self.sites):
            raise UsageError(f"quorum {self.quorum} of {len(self.sites)} sites", hint="at least 1, at most all")
        if self.weight_cap < 1:
            raise UsageError("the weight cap must be at least 1")

    @property
    def first_epoch(self) -> int:
        """The epoch of the whole schedule at which this round's training begins, from 0."""
        return (self.round - 1) * self.schedule.local_epochs
