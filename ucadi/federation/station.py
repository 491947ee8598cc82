"""Where a site works: its exchange directory, its key with what was agreed to, and its private folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ucadi.events import Events
from ucadi.federation.agreeing import Agreeing
from ucadi.federation.checking import Checking
from ucadi.federation.models import Models
from ucadi.federation.private import Private
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class Options:
    """What a site does with its rounds."""

    dataset: Path
    split: Path | None
    part: str | None
    test: Path | None
    clip: bool
    publish_model: bool
    publish_metrics: bool
    max_rounding: float | None = None


@dataclass
class Station:
    """A site's places and means; `trusted` is a roster that it has accepted, `key` the file of its `keys`."""

    exchange: Final[Exchange]
    trusted: Final[Roster]
    keys: Final[SecretKeys]
    key: Final[Path]
    agreement: Final[Agreement]
    private: Final[Private]
    options: Final[Options]
    tell: Final[Events]

    @property
    def _agreeing(self) -> Agreeing:
        return Agreeing(self.exchange, self.trusted, self.keys, self.key, self.agreement)

    @property
    def _checking(self) -> Checking:
        return Checking(self.exchange, self.private, self.keys, self.key)

    @property
    def _models(self) -> Models:
        return Models(self.exchange, self.private, self.keys, self.tell)

    def _place(self, kind: Kind, number: int) -> Path:
        """Where this site writes its own file."""
        return self.exchange.make_place(kind, number, self.keys.name)

    def _stands(self, kind: Kind, number: int, round_: Round) -> bool:
        """Whether this site's own file is in its place, signed by it for this round; anything else may be replaced."""
        here = self.exchange.has(kind, number, self.keys.name)
        return here and is_signed(self._place(kind, number), self.keys.public, round_.plan_digest)

    def _is_summed(self, number: int, round_: Round) -> bool:
        """Whether the coordinator's sum of the round is here, and not somebody else's file in its place."""
        here = self.exchange.has(Kind.SUM, number)
        return here and is_signed(self.exchange.sum(number), round_.roster.coordinator, round_.plan_digest)

    def _documents(self, number: int) -> tuple[Path, Path]:
        """The plan and the roster of a round."""
        return self.exchange.plan(number), self.exchange.roster(number)
