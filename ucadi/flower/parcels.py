"""A courier's parcel as a record of a Flower message, with the names of what its sender has already."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from flwr.app import ConfigRecord, RecordDict

from ucadi.commands.courier import courier_unpack
from ucadi.formats import courier as courier_format
from ucadi.formats.exchange import Exchange
from ucadi.rounds.delivery import needed

RECORD = "parcel"


def packed(exchange: Path, receiver: str, known: Collection[str]) -> RecordDict:
    """What `receiver`, a site or the coordinator, is to have of the exchange directory and does not know yet."""
    folder = Exchange(exchange)
    present = [place.name for place in folder.places()]
    names = [name for name in needed(folder, receiver)[0] if name not in known] if present else []
    record: dict[str, bytes | list[str]] = {"held": present}
    if names:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / RECORD
            courier_format.write(file, exchange, names, receiver)
            record["files"] = file.read_bytes()
    return RecordDict({RECORD: ConfigRecord(record)})


def unpacked(content: RecordDict, exchange: Path, roster: Path) -> tuple[str, ...]:
    """Lets a parcel's files in, once all are checked as a courier's are; the names of those that are new."""
    files = content[RECORD].get("files")
    if not files:
        return ()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / RECORD
        file.write_bytes(bytes(files))
        return courier_unpack(file, exchange, roster=roster).unpacked


def held(content: RecordDict) -> frozenset[str]:
    """The names of what the sender has: it need not be sent again."""
    return frozenset(map(str, content[RECORD]["held"]))
