"""The plan of a round: everything that its sites must agree on before they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ucadi.errors import UsageError
from ucadi.fed.fixedpoint import Layout
from ucadi.fed.optimisers import FEDAVG, ServerOptimiser
from ucadi.hyperparameters import Recipe

KeyMode = Literal["members", "threshold"]


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
    schedule: Recipe
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
