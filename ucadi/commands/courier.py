"""ucadi courier pack, unpack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output, RosterFile
from ucadi.errors import OutputError
from ucadi.formats import courier as courier_format
from ucadi.formats import roster as roster_format
from ucadi.formats.exchange import Exchange
from ucadi.rounds.delivery import let_in, needed


@dataclass(frozen=True)
class CourierPackResult:
    """The file made, the names of what is in it, and of what was left out, as its receiver would refuse it."""

    output: Path
    receiver: str
    files: tuple[str, ...]
    bytes: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        left_out = [f"left out, as nobody vouches for it: {name}" for name in self.left_out]
        last = f"{self.output}: {len(self.files)} files for {self.receiver}, {self.bytes:,} bytes"
        return "\n".join([*left_out, last])


@dataclass(frozen=True)
class CourierUnpackResult:
    """Names of the files that are new here, and how many were here already."""

    exchange: Path
    receiver: str
    unpacked: tuple[str, ...]
    present: int

    def __str__(self) -> str:
        last = f"{self.exchange}: {len(self.unpacked)} unpacked, {self.present} here already"
        return "\n".join([*self.unpacked, last])


def courier_pack(
    exchange: Annotated[Path, typer.Argument(help="The exchange directory.")],
    *,
    receiver: Annotated[str, typer.Option("--for", help="Who gets it: a site, or the coordinator.")],
    output: Output,
    force: Force = False,
) -> CourierPackResult:
    """Pack what a site needs into one file, to carry it by hand; for the coordinator, what the site made.

    A site's file holds rosters, plans, models, sums, others' partial decryptions and receipts, and nobody's upload.

    Example:
        ucadi courier pack exchange --for site-a -o site-a.courier
    """
    names, left_out = needed(Exchange(exchange), receiver)
    items = courier_format.write(output, exchange, names, receiver, force=force)
    packed = tuple(item.name for item in items)
    return CourierPackResult(output, receiver, packed, output.stat().st_size, tuple(left_out))


def courier_unpack(
    file: Annotated[Path, typer.Argument(help="The file that courier pack made.")],
    exchange: Annotated[Path, typer.Argument(help="One's own exchange directory; made if it is not there.")],
    *,
    roster: RosterFile,
) -> CourierUnpackResult:
    """Unpack a courier's file into one's exchange directory, once all of it has been checked.

    Nothing of anybody's is replaced: another file of the same maker is an error, and then nothing is unpacked. What
    nobody has signed and lies in the way is renamed. A file brought twice does nothing. A directory that is not there
    yet is made.

    Example:
        ucadi courier unpack site-a.courier own-exchange --roster federation.json
    """
    trusted = roster_format.read(roster)
    with courier_format.opened(file) as parcel, _made(exchange) as folder:
        unpacked = let_in(parcel, folder, trusted)
        return CourierUnpackResult(exchange, parcel.receiver, unpacked, len(parcel.items) - len(unpacked))


@contextmanager
def _made(place: Path) -> Iterator[Exchange]:
    """The exchange directory, made if nothing is there; if nothing is let in, it goes again."""
    is_new = not place.exists()
    if is_new:
        try:
            place.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{place}: {error.strerror}", hint="choose a folder that can be made") from None
    try:
        yield Exchange(place)
    except BaseException:
        if is_new and not any(place.iterdir()):
            place.rmdir()
        raise
