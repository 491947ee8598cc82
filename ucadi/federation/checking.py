"""A site's tag of its own upload, made once for each round; and a sum, as nobody can change it while it is checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ucadi.commands.tag import tag
from ucadi.errors import FormatError, MismatchError
from ucadi.federation.private import Private
from ucadi.files import copy_file, file_digest
from ucadi.formats import tag as tag_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.identity import SecretKeys
from ucadi.kinds import PRIVATE_MODE, Kind
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class Checking:
    """What a site does in a round that is over, so that its sum can be checked; `key` is the file of its `keys`."""

    exchange: Final[Exchange]
    private: Final[Private]
    keys: Final[SecretKeys]
    key: Final[Path]

    def publish_tag(self, number: int, round_: Round, digest: str) -> bool:
        """Puts the site's tag for the receipt of that digest into its place; False if it is there, or cannot be made.

        A tag stands for good: MismatchError if it was made for another receipt of the round.
        """
        kept, place = self.private.of_round(round_, "tag"), self.exchange.path(Kind.TAG, number, self.keys.name)
        here = self.exchange.has(Kind.TAG, number, self.keys.name)
        if not kept.exists() and here and self._is_own(place, round_):
            copy_file(place, kept, mode=PRIVATE_MODE)
        if not kept.exists():
            upload = self._own_upload(number, round_)
            if upload is None or round_.roster.member(self.keys.name) != self.keys.public:
                return False
            plan, roster = self.exchange.plan(number), self.exchange.roster(number)
            tag(upload, plan=plan, roster=roster, receipt=self.exchange.receipt(number), key=self.key, output=kept)
            kept.chmod(PRIVATE_MODE)
        if tag_format.read(kept, round_.roster).receipt != digest:
            raise MismatchError(
                f"{self.exchange.receipt(number)}: another receipt than the one that {self.keys.name} was given before",
                hint="the coordinator may sign only one: do not go on, keep this file, and tell the other members",
            )
        self.private.of_round(round_, "enc").unlink(missing_ok=True)
        if here and file_digest(place) == file_digest(kept):
            return False
        copy_file(kept, self.exchange.make_place(Kind.TAG, number, self.keys.name), force=True)
        return True

    def own_sum(self, number: int, round_: Round, receipt: Receipt) -> Path:
        """The sum that the receipt names, in the private folder: in a shared one it could change between two looks."""
        kept = self.private.of_round(round_, "sum")
        if not kept.exists():
            copy_file(self.exchange.sum(number), kept, mode=PRIVATE_MODE)
        if file_digest(kept) != receipt.sum:
            kept.unlink()
            raise MismatchError(
                f"{self.exchange.sum(number)}: not the sum that the receipt names",
                hint="do not go on, ask the coordinator",
            )
        return kept

    def _own_upload(self, number: int, round_: Round) -> Path | None:
        """The site's upload as it was sent: the private copy, or else what lies in its place."""
        kept = self.private.of_round(round_, "enc")
        if not kept.exists() and self.exchange.has(Kind.UPLOAD, number, self.keys.name):
            copy_file(self.exchange.path(Kind.UPLOAD, number, self.keys.name), kept, mode=PRIVATE_MODE)
        return kept if kept.exists() else None

    def _is_own(self, place: Path, round_: Round) -> bool:
        try:
            found = tag_format.read(place, round_.roster)
        except (FormatError, MismatchError):
            return False
        return (found.site, found.plan) == (self.keys.name, round_.plan_digest)
