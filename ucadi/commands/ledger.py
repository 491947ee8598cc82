"""ucadi ledger: show, accept-loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import KeyFile, confirm
from ucadi.errors import UsageError
from ucadi.formats import keys as key_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.ledger import Entry, Ledger, What
from ucadi.rounds.recovery import forgotten

_WORDS = {
    What.ACCEPTED: "accepted roster {number} of {federation}",
    What.ENCRYPTED: "encrypted an update for round {number} of {federation}",
    What.COUNTED: "encrypted counts for round {number} of {federation}",
    What.ANSWERED: "helped to open round {number} of {federation}",
    What.SUMMED: "summed round {number} of {federation}: {sites}",
    What.REPLACED: "other keys replace these",
    What.LOST: "an earlier ledger was lost",
}


@dataclass(frozen=True)
class LedgerResult:
    """What a key's ledger tells, a line for each entry."""

    ledger: Path
    head: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.ledger}: head {self.head}", *(f"  {line}" for line in self.lines)])


@dataclass(frozen=True)
class LossResult:
    """What was entered in place of lines that are lost."""

    ledger: Path
    entered: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"  {line}" for line in self.entered]
        return "\n".join(
            [
                f"{self.ledger}: the loss is entered",
                *lines,
                "What else this key did is not known. Who got two uploads or two answers of one round from it",
                "can compute a difference of updates: repeat no round, and tell the other sites.",
                "Now accept the roster again: ucadi roster accept",
            ]
        )


def ledger_show(key: KeyFile) -> LedgerResult:
    """Tell what a key was used for.

    Example:
        ucadi ledger show --key site-a.key
    """
    keys = key_format.read_key(key)
    ledger = Ledger.beside(key, keys.public)
    history = ledger.read()
    return LedgerResult(ledger.path, history.head, tuple(map(_told, history.entries)))


def ledger_accept_loss(
    *,
    key: KeyFile,
    exchange: Annotated[
        Path | None, typer.Option(help="The exchange directory, with all that this key has signed.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> LossResult:
    """Go on after a key's ledger was lost, or came back from an old backup.

    Look for the newest copy first. What the exchange directory shows of this key's work is entered again; anything
    else that it did is not known any more, and a second answer to one question could disclose an update.

    Example:
        ucadi ledger accept-loss --key site-a.key --exchange exchange --yes
    """
    keys = key_format.read_key(key)
    ledger = Ledger.beside(key, keys.public)
    folder = None if exchange is None else Exchange(exchange)
    if folder is not None:
        folder.opened_rounds()
    if not yes and not confirm("Is there no newer copy of the ledger anywhere?", "run it in a terminal, or --yes"):
        raise UsageError("nothing was changed", hint=f"bring the newest copy to {ledger.path}")
    if not ledger.path.exists():
        ledger.begin()
        ledger.add(Entry(What.LOST))
    lost = [] if folder is None else forgotten(folder, keys, ledger.read())
    with ledger.adding() as draft:
        for entry in lost:
            draft.add(entry)
    return LossResult(ledger.path, tuple(dict.fromkeys(map(_told, lost))))


def _told(entry: Entry) -> str:
    return _WORDS[entry.what].format(number=entry.number, federation=entry.federation, sites=", ".join(entry.sites))
