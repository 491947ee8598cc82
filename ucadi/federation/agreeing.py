"""What a site waits for before it takes part in a round: its people, the others' consents, a round within policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ucadi.errors import ConsentError
from ucadi.federation.awaiting import Awaited, Awaits
from ucadi.files import copy_file, file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.ledger import What
from ucadi.formats.roster import Roster
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.consents import consents_beside, how_to_accept, missing_consents
from ucadi.rounds.round import Round
from ucadi.rounds.vouching import newest_roster


@dataclass(frozen=True)
class Agreeing:
    """A site's agreement, and the rosters and consents in its exchange directory; `key` is the file of its `keys`."""

    exchange: Final[Exchange]
    trusted: Final[Roster]
    keys: Final[SecretKeys]
    key: Final[Path]
    agreement: Final[Agreement]

    def awaited(self, number: int, round_: Round) -> Awaited | None:
        """What has to come before this site does anything in a round; None if nothing has."""
        roster = self.exchange.roster(number)
        if round_.roster.member(self.keys.name) != self.keys.public:
            return Awaited(Awaits.OTHER_KEYS, number, (round_.roster.member(self.keys.name).fingerprint,))
        if not self.agreement.has_accepted(round_.roster):
            return Awaited(Awaits.ACCEPTANCE, number, (how_to_accept(roster, self.key),))
        if missing := missing_consents(round_.roster, round_.plan.sites, consents_beside(roster), self.keys.name):
            return Awaited(Awaits.CONSENTS, number, missing)
        try:
            self.agreement.check_round(round_, roster)
        except ConsentError as error:
            return Awaited(Awaits.POLICY, number, (error.message,))
        return None

    def publish(self) -> bool:
        """Puts this site's consents into their places, whatever lies there; whether any was missed."""
        published = False
        for entry in self.agreement.accepted(self.trusted.federation):
            kept, place = self.agreement.kept_consent(entry.document), (Kind.CONSENT, entry.number, self.keys.name)
            here = self.exchange.has(*place) and file_digest(self.exchange.path(*place))
            if kept.exists() and here != file_digest(kept):
                copy_file(kept, self.exchange.make_place(*place), force=True)
                published = True
        return published

    def ahead(self, number: int) -> Awaited | None:
        """The same of the round `number` to come, where a newer roster than that of any round is here."""
        newest = newest_roster(self.exchange)
        path = self.exchange.path(Kind.ROSTER, newest.sequence if newest.sequence > 1 else 0)
        newest.check_same_federation(self.trusted, path.name)
        if self.keys.public not in newest.members or self.agreement.has_accepted(newest):
            return None
        return Awaited(Awaits.ACCEPTANCE, number, (how_to_accept(path, self.key),))

    def check_remembers(self, what: What, kind: Kind, number: int, round_: Round) -> None:
        """Raises if the ledger does not know of an own file in the exchange: it was lost, or is an old copy."""
        name = self.exchange.path(kind, number, self.keys.name).name
        self.agreement.check_remembers_doing(what, round_, name)
