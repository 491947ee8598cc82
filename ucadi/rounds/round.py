"""A round: its plan, the roster it was made for, and what follows from both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ucadi.errors import CapacityError
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.plan import Plan
from ucadi.formats import plan as plan_format
from ucadi.formats import roster as roster_format
from ucadi.formats.container import canonical_json
from ucadi.formats.roster import Roster
from ucadi.identity import SEAL_OVERHEAD
from ucadi.lwe.parameters import Packing, polynomials
from ucadi.lwe.randomness import SEED_BYTES
from ucadi.lwe.shamir import SHARE_BYTES
from ucadi.scoring.histogram import BINS

COUNTS = "counts"
"""The tensor of a counting round, in which sites' histograms are added."""

COUNTING_CAP = 1
"""The weight of a site in it: each counts as one."""


def counting_layout(sites: int) -> Layout:
    """The layout of a round in which `sites` sites count: quanta of 1."""
    return Layout((TensorRange(COUNTS, (2, BINS), Packing(sites).value_bits - 1),))


@dataclass(frozen=True)
class Round:
    """A plan and its roster, read and verified. `plan_digest` names the round in every file of it."""

    plan: Plan
    plan_digest: str
    roster: Roster

    def __post_init__(self) -> None:
        if self.plan.weight_cap >= 1 << self.bits:
            raise CapacityError(
                f"weight cap {self.plan.weight_cap}; {len(self.plan.sites)} sites admit less than {1 << self.bits}",
                hint="count examples in tens or hundreds, or plan fewer local epochs",
            )

    @classmethod
    def read(cls, plan: Path, roster: Path) -> Round:
        """Reads both files, checks the coordinator's signatures and that they belong together."""
        members = roster_format.read(roster)
        return cls(*plan_format.read(plan, members), members)

    @property
    def packing(self) -> Packing:
        """How message values lie in a ciphertext, given how many sites may be added."""
        return Packing(len(self.plan.sites))

    @property
    def bits(self) -> int:
        """Width of an encoded value, in the clear and encrypted alike."""
        return self.packing.value_bits

    @property
    def values(self) -> int:
        """Length of an encoded update: its weight and every element of the model."""
        return 1 + self.plan.layout.size

    @property
    def polynomials(self) -> int:
        """Length of a ciphertext."""
        return polynomials(self.values)

    @property
    def is_counting(self) -> bool:
        """Whether the round adds histograms, and not updates."""
        return self.plan.layout == counting_layout(len(self.plan.sites)) and self.plan.weight_cap == COUNTING_CAP

    @property
    def seals(self) -> tuple[int, int]:
        """Shape of a ciphertext's seals: a row for each member, of the site's secret or a share of it."""
        part = SEED_BYTES if self.plan.mode == "members" else SHARE_BYTES
        return len(self.roster.members), part + SEAL_OVERHEAD

    @property
    def public_seed(self) -> bytes:
        """The seed of the public polynomials: the plan's digest, so that no two rounds share them."""
        return bytes.fromhex(self.plan_digest)

    def seal_context(self, sender: str, receiver: str, ciphertext_digest: str) -> bytes:
        """What a seal is bound to: copied to another file, round, sender or receiver, it does not open."""
        bound = {
            "ciphertext": ciphertext_digest,
            "federation": self.plan.federation,
            "plan": self.plan_digest,
            "receiver": receiver,
            "round": self.plan.round,
            "sender": sender,
        }
        return b"ucadi/seal/v1\n" + canonical_json(bound).encode("ascii")
