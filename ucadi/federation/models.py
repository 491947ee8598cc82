"""A site's models: the one that a round begins with, from wherever it can be had, and its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ucadi.commands.apply import apply
from ucadi.events import Events
from ucadi.federation.private import Private
from ucadi.files import copy_file
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.identity import SecretKeys
from ucadi.kinds import Format, Kind
from ucadi.rounds.handing import take_over
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class Models:
    """The models in a site's private folder, and the way in for more."""

    exchange: Final[Exchange]
    private: Final[Private]
    keys: Final[SecretKeys]
    tell: Final[Events]

    def base(self, number: int, round_: Round) -> Path | None:
        """The weights that a round begins with; None if they are not here yet."""
        model = self.private.model(round_.plan.base)
        if model.exists():
            return model
        published = self.exchange.model(number)
        if self.exchange.has(Kind.MODEL, number) and file_digest(published) == round_.plan.base:
            copy_file(published, model, mode=Format.WEIGHTS.mode)
            return model
        giver = take_over(self.exchange, number, round_, self.keys, model)
        if giver is None:
            return None
        self.tell("taken over", {"round": number, "from": giver})
        return model

    def norms(self, number: int, round_: Round) -> Path | None:
        """The newest own update before round `number`, where the round leaves norms to the sites."""
        return None if round_.plan.shares_norms else self.private.newest_update(number)

    def own(self, number: int, round_: Round, base: Path, opened: Path) -> Path | None:
        """The round's model with the site's own norms, where the round leaves them to the sites."""
        norms = self.norms(number + 1, round_)
        if norms is None:
            return None
        plan, roster = self.exchange.plan(number), self.exchange.roster(number)
        own = self.private.of_round(round_, "own.weights")
        apply(base, opened, output=own, plan=plan, roster=roster, local_norms=norms, force=True)
        return own
