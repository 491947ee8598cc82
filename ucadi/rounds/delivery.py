"""Files brought by hand: which ones a receiver needs, and what must be true of them before any is let in.

What the coordinator made is let in only if a signed document names it: a model its plan, a sum its receipt.
Partial decryptions bear their member's signature. Uploads are judged when the round is closed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ucadi.errors import FormatError, MismatchError, OutputError
from ucadi.files import make_folder, new_file
from ucadi.formats import consent as consent_format
from ucadi.formats import partial as partial_format
from ucadi.formats import roster as roster_format
from ucadi.formats import statement as statement_format
from ucadi.formats.container import MAX_HEADER, file_digest
from ucadi.formats.courier import Item, Parcel
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Roster
from ucadi.kinds import Carried, Kind, Maker, Place
from ucadi.progress import track
from ucadi.rounds.closing import read_receipt, read_roster, read_round
from ucadi.rounds.round import Round
from ucadi.rounds.threshold import check_partial

_DOCUMENTS = (Kind.ROSTER, Kind.CONSENT, Kind.PLAN, Kind.RECEIPT)
_OF_NO_ROUND = (Kind.ROSTER, Kind.CONSENT)
_MAX_PARTIAL = 1 << 23
"""Bytes; a partial decryption sealed to the most members that a roster can have is a quarter of that."""


def needed(exchange: Exchange, receiver: str) -> list[str]:
    """Names of the files here that the receiver needs: for the coordinator what sites made, for a site what
    `ucadi.kinds` says that couriers carry to sites, but for its own."""
    roster = read_roster(exchange, exchange.newest_roster())
    places = exchange.places()
    if receiver == roster.coordinator.name:
        return [place.name for place in places if place.kind.maker is Maker.SITE]
    roster.member(receiver)
    opened = set(exchange.rounds())
    over = {place.number for place in places if place.kind is Kind.RECEIPT}

    def is_needed(place: Place) -> bool:
        match place.kind.carried:
            case Carried.ALWAYS:
                return place.site != receiver
            case Carried.OPEN:
                return place.number in opened and place.site != receiver
            case Carried.OVER:
                return place.number in over and place.site != receiver
            case Carried.NEVER:
                return False

    return [place.name for place in places if is_needed(place)]


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
        target = exchange.root / item.name
        make_folder(target.parent)
        with new_file(target) as part:
            parcel.copy(item, part)
    return tuple(item.name for item in items)


def _is_here(exchange: Exchange, item: Item) -> bool:
    """Whether the file is here already; MismatchError if its place is taken by anything else."""
    path = exchange.root / item.name
    for folder in list(path.relative_to(exchange.root).parents)[:-1]:
        if (here := exchange.root / folder).is_symlink() or (here.exists() and not here.is_dir()):
            raise MismatchError(f"{here}: not a folder, and {item.name} belongs there", hint="move it away")
    if not (path.is_symlink() or path.exists()):
        return False
    if path.is_symlink() or not path.is_file():
        raise MismatchError(f"{path}: not a file, and {item.name} belongs there", hint="move it away")
    if path.stat().st_size != item.size or file_digest(path) != item.sha256:
        raise MismatchError(
            f"{item.name} is here already, with other content",
            hint="nothing was unpacked: ask the coordinator which of the two is right",
        )
    return True


def _check_room(exchange: Exchange, items: Sequence[Item]) -> None:
    wanted = sum(item.size for item in items)
    if shutil.disk_usage(exchange.root).free < wanted:
        raise OutputError(f"{exchange.root}: no room for {wanted:,} bytes", hint="make room, and unpack again")


def _check_signed(parcel: Parcel, items: Sequence[Item], exchange: Exchange, trusted: Roster) -> None:
    """Raises unless all that is new belongs to the trusted roster's federation and is vouched for."""
    with tempfile.TemporaryDirectory(prefix="ucadi-") as folder:
        staged = _stage(parcel, items, exchange, Path(folder))
        places = [(place, item) for item in items if (place := Place.parse(item.name)) is not None]
        for place, _ in places:
            if place.kind is Kind.ROSTER:
                roster_format.read(staged.root / place.name).check_same_federation(trusted, place.name)
        for place, _ in places:
            if place.kind is Kind.CONSENT:
                _check_consent(place, staged)
        for number in sorted({place.number for place, _ in places if place.kind not in _OF_NO_ROUND}):
            if not staged.plan(number).exists():
                raise MismatchError(f"round {number}: no plan, neither here nor brought", hint="bring all of it")
            round_ = read_round(staged, number)
            round_.roster.check_same_federation(trusted, staged.roster(number).name)
            read_receipt(staged, number, round_)
            for place, item in places:
                if place.number == number and place.kind not in _OF_NO_ROUND:
                    _check_vouched(place, item, staged, round_)


def _stage(parcel: Parcel, items: Sequence[Item], exchange: Exchange, folder: Path) -> Exchange:
    """What must be read to be judged, in a folder outside the exchange, with the documents that are here."""
    for here in exchange.places():
        if here.kind in _DOCUMENTS:
            target = folder / here.name
            make_folder(target.parent)
            shutil.copyfile(exchange.root / here.name, target)
    for item in items:
        place = Place.parse(item.name)
        if place is None or place.kind not in (*_DOCUMENTS, Kind.PARTIAL, Kind.METRICS):
            continue
        if item.size > (_MAX_PARTIAL if place.kind is Kind.PARTIAL else MAX_HEADER):
            raise FormatError(f"{item.name}: {item.size} bytes are more than such a file can have")
        target = folder / item.name
        make_folder(target.parent)
        parcel.copy(item, target)
    return Exchange(folder)


def _check_consent(place: Place, staged: Exchange) -> None:
    """Raises MismatchError unless it is the consent of that site to the roster of that sequence."""
    rosters = (read_roster(staged, path) for path in staged.rosters())
    roster = next((one for one in rosters if one.sequence == place.number), None)
    if roster is None:
        raise MismatchError(f"{place.name}: no roster {place.number}, neither here nor brought", hint="bring all of it")
    consent = consent_format.read(staged.root / place.name, roster.member(place.site))
    consent_format.check_for(consent, roster, place.name)


def _check_vouched(place: Place, item: Item, staged: Exchange, round_: Round) -> None:
    if place.site and place.site not in round_.roster.names:
        raise MismatchError(
            f"{place.name}: {place.site} is no member", hint="members: " + ", ".join(round_.roster.names)
        )
    match place.kind:
        case Kind.MODEL if item.sha256 != round_.plan.base:
            raise MismatchError(f"{place.name}: not the weights that the plan of round {place.number} names")
        case Kind.SUM:
            found = read_receipt(staged, place.number, round_)
            if found is None or item.sha256 != found[0].sum:
                raise MismatchError(f"{place.name}: not the sum that a receipt of round {place.number} names")
        case Kind.PARTIAL:
            partial = partial_format.read(staged.root / place.name)
            check_partial(partial, round_, place.name)
            if partial.member != place.site:
                raise MismatchError(f"{place.name}: the partial decryption of {partial.member}")
        case Kind.METRICS:
            statement = statement_format.read(staged.root / place.name, round_.roster.member(place.site))
            if statement.plan != round_.plan_digest:
                raise MismatchError(f"{place.name}: a statement on another round", hint=f"ask {place.site} for its own")
        case _:
            pass
