"""Two histories: what a coordinator signed of one round for some, and something else for others.

Each receipt has a mark, a short document that the coordinator signs too; members pass it on in their statements. So
whoever reads a statement has the coordinator's own signature on the history that its author saw. Two marks of one round
are proof, whoever brings it, and nobody else can make one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ucadi.errors import MismatchError, UcadiError
from ucadi.files import make_folder, read_bytes, write_file
from ucadi.formats import receipt as receipt_format
from ucadi.formats import statement as statement_format
from ucadi.formats.container import MAX_HEADER
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Mark, Receipt
from ucadi.formats.roster import Roster
from ucadi.kinds import Kind


def marks_seen(exchange: Exchange, roster: Roster, number: int | None = None) -> Iterator[tuple[str, Mark]]:
    """The marks that statements here pass on, of one round or of all, each with its statement's name; only those that
    the coordinator of `roster` signed."""
    for place in exchange.places(Kind.METRICS, number):
        try:
            mark = statement_format.read_mark(exchange.root / place.name)
            if mark is not None:
                receipt_format.check_mark(mark, roster, place.name)
                if mark.round == place.number:
                    yield place.name, mark
        except UcadiError:
            continue


def check_one_history(exchange: Exchange, receipt: Receipt, roster: Roster, keep: Path | None = None) -> None:
    """Raises MismatchError if a statement on the round passes on another mark than its receipt has.

    Both files are copied to the folder `keep` first: together they prove it.
    """
    for name, mark in marks_seen(exchange, roster, receipt.round):
        if mark.document != receipt.mark:
            proof = ""
            if keep is not None:
                make_folder(keep, mode=0o700)
                for path in (exchange.receipt(receipt.round), exchange.root / name):
                    kept = keep / f"round-{receipt.round:04}-{path.name}"
                    write_file(kept, read_bytes(path, MAX_HEADER), force=True, mode=0o600)
                proof = f"; both are kept in {keep}"
            raise MismatchError(
                f"round {receipt.round}: {roster.coordinator.name} signed two ends of it; {name} has another than the "
                f"receipt here{proof}",
                hint="do not go on; call the other sites, and show them both files",
            )


def check_not_signed(exchange: Exchange, number: int, roster: Roster) -> None:
    """For a coordinator before it signs: MismatchError if sites have seen the end of this round or a later one."""
    for name, mark in marks_seen(exchange, roster):
        if mark.round >= number:
            raise MismatchError(
                f"round {number}: {name} shows that round {mark.round} was closed before, by this coordinator's key",
                hint="this folder is an old copy: bring the newest one, or what the relay and the sites have",
            )
