"""Files brought by hand: which ones a receiver needs, and what must be true of them before any is let in.

Nothing is let in that nobody vouches for (`ucadi.rounds.vouching`), so a stick fills no place of another's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ucadi.errors import FormatError, MismatchError, OutputError
from ucadi.files import make_folder, new_file, writing
from ucadi.formats import roster as roster_format
from ucadi.formats.container import MAX_HEADER, file_digest
from ucadi.formats.courier import Item, Parcel
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Roster
from ucadi.kinds import Carried, Form, Format, Kind, Maker, Place
from ucadi.progress import track
from ucadi.rounds.closing import led_rounds, read_receipt, read_round
from ucadi.rounds.vouching import check_consent, check_vouched, is_vouched, newest_roster

_DOCUMENTS = (Kind.ROSTER, Kind.CONSENT, Kind.PLAN, Kind.RECEIPT, Kind.METRICS)
_OF_NO_ROUND = (Kind.ROSTER, Kind.CONSENT)
_SMALL = {one for one in Format if one.form is Form.DOCUMENT} | {Format.PARTIAL}
_ROOM = "make room there, or set TMPDIR to a folder on a larger disk, and unpack again"
_MAX_PARTIAL = 1 << 23
"""Bytes; a partial decryption sealed to the most members that a roster can have is a quarter of that."""


def needed(exchange: Exchange, receiver: str) -> tuple[list[str], list[str]]:
    """Names of the files here that the receiver needs: for the coordinator what sites made, for a site what
    `ucadi.kinds` says that couriers carry to sites, but for its own. And those that nobody vouches for, which the
    receiver would refuse."""
    roster = newest_roster(exchange)
    places = exchange.places()
    opened = set(exchange.rounds())
    over = {place.number for place in places if place.kind is Kind.RECEIPT}

    def is_needed(place: Place) -> bool:
        if receiver == roster.coordinator.name:
            return place.kind.maker is Maker.SITE
        match place.kind.carried:
            case Carried.ALWAYS:
                return place.site != receiver
            case Carried.OPEN:
                return place.number in opened and place.site != receiver
            case Carried.OVER:
                return place.number in over and place.site != receiver
            case Carried.NEVER:
                return False

    if receiver != roster.coordinator.name:
        roster.member(receiver)
    wanted = [place for place in places if is_needed(place)]
    led = led_rounds(exchange, roster.coordinator)
    unknown = [place for place in wanted if place.kind is not Kind.ROSTER and place.number not in led]
    good = [place.name for place in wanted if place in unknown or is_vouched(place, exchange)]
    return good, [place.name for place in wanted if place.name not in good]


def let_in(parcel: Parcel, exchange: Exchange, trusted: Roster) -> tuple[str, ...]:
    """Brings the files that are not here yet into the exchange; returns their names.

    Everything is checked before the first is written. Each then lands whole; interrupted, it is done again.
    """
    items = [item for item in parcel.items if not _is_here(exchange, item)]
    _check_room(exchange, items)
    for item in track(parcel.items, "checking"):
        for _ in parcel.pieces(item):
            pass
    _check_signed(parcel, items, exchange, trusted)
    for item in track(items, "unpacking"):
        place = Place.named(item.name)
        with new_file(exchange.clear_place(place.kind, place.number, place.site)) as part:
            parcel.copy(item, part)
    return tuple(item.name for item in items)


def _is_here(exchange: Exchange, item: Item) -> bool:
    """Whether the file is here already; MismatchError if another that is vouched for has its place.

    Anything else that lies there, or on the way there, is renamed to a hidden name when the file comes.
    """
    place = Place.parse(item.name)
    if place is None or not exchange.has(place.kind, place.number, place.site):
        return False
    path = exchange.root / item.name
    if file_digest(path) == item.sha256:
        return True
    if is_vouched(place, exchange):
        raise MismatchError(
            f"{item.name} is here already, with other content",
            hint="nothing was unpacked: ask the coordinator which of the two is right",
        )
    return False


def _check_room(exchange: Exchange, items: Sequence[Item]) -> None:
    wanted = sum(item.size for item in items)
    if shutil.disk_usage(exchange.root).free < wanted:
        raise OutputError(f"{exchange.root}: no room for {wanted:,} bytes", hint="make room, and unpack again")


def _check_signed(parcel: Parcel, items: Sequence[Item], exchange: Exchange, trusted: Roster) -> None:
    """Raises unless all that is new belongs to the trusted roster's federation and is vouched for."""
    with tempfile.TemporaryDirectory(prefix="ucadi-") as folder:
        staged = _stage(parcel, items, exchange, Path(folder))
        places = [Place.named(item.name) for item in items]
        for place in places:
            if place.kind is Kind.ROSTER:
                roster_format.read(staged.root / place.name).check_same_federation(trusted, place.name)
        for place in places:
            if place.kind is Kind.CONSENT:
                check_consent(staged.root / place.name, place, staged)
        for number in sorted({place.number for place in places if place.kind not in _OF_NO_ROUND}):
            if not staged.plan(number).exists():
                raise MismatchError(f"round {number}: no plan, neither here nor brought", hint="bring all of it")
            round_ = read_round(staged, number)
            round_.roster.check_same_federation(trusted, staged.roster(number).name)
            read_receipt(staged, number, round_)  # that of the plan, if there is one
            for place in places:
                if place.number == number and place.kind not in _OF_NO_ROUND:
                    check_vouched(staged.root / place.name, place, staged, round_)


def _stage(parcel: Parcel, items: Sequence[Item], exchange: Exchange, folder: Path) -> Exchange:
    """What is judged, in a folder outside the exchange, with the documents that are here."""
    for here in exchange.places():
        if here.kind in _DOCUMENTS and is_vouched(here, exchange):
            target = folder / here.name
            make_folder(target.parent)
            shutil.copyfile(exchange.root / here.name, target)
    for item in items:
        kind = Place.named(item.name).kind
        if item.size > (_MAX_PARTIAL if kind is Kind.PARTIAL else MAX_HEADER) and kind.format in _SMALL:
            raise FormatError(f"{item.name}: {item.size} bytes are more than such a file can have")
        target = folder / item.name
        make_folder(target.parent)
        with writing(target, _ROOM):
            parcel.copy(item, target)
    return Exchange(folder)
