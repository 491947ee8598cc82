"""Closing a round: its uploads judged one by one, the good ones added, and the outcome signed for good.

All state is in the exchange directory, so whoever closes may be killed at any moment and run again. The sum
is written first and the receipt last: a sum without a receipt may have been seen by others, so it stands,
and closing goes on with the uploads that it lists.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ucadi.errors import MismatchError, OutputError, UcadiError
from ucadi.files import writing
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import partial as partial_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats import roster as roster_format
from ucadi.formats.ciphertext import Ciphertext, CiphertextSum
from ucadi.formats.exchange import Exchange, make_way
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed, signed_by
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import Format, Kind, Place
from ucadi.progress import track
from ucadi.rounds.collection import check_quorum, contributions_digest, read_upload, write_sum
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.histories import check_not_signed
from ucadi.rounds.opening import check_sum
from ucadi.rounds.round import Round
from ucadi.rounds.threshold import check_partial, open_partial
from ucadi.rounds.verification import check_addition

_MAX_REASON = 300
"""Characters: with a thousand sites, all refused, the receipt can still be read back."""


@dataclass(frozen=True)
class JudgedUploads:
    """What lies in a round's folder of uploads.

    `good` gives the SHA-256 of the files that can be added by their site, `refused` the reason by the name of
    the file. `strays` are files that the layout has no place for, or of nobody in the roster: they are
    shown, but enter no receipt, so that nobody can fill one.
    """

    good: dict[str, str]
    refused: dict[str, str]
    strays: tuple[str, ...]


def read_roster(exchange: Exchange, path: Path) -> Roster:
    """A roster of the exchange; MismatchError if its federation or coordinator is not that of the first."""
    roster, first = roster_format.read(path), roster_format.read(exchange.path(Kind.ROSTER, 0))
    roster.check_same_federation(first, path.name)
    place = Place.parse(path.name)
    if place is not None and roster.sequence != (place.number or 1):
        raise MismatchError(
            f"{path.name}: roster {roster.sequence} of {roster.federation}", hint="each roster lies under its number"
        )
    return roster


def read_round(exchange: Exchange, number: int) -> Round:
    """The plan of a round with its roster, both verified."""
    path = exchange.roster(number)
    read_roster(exchange, path)
    round_ = Round.read(exchange.plan(number), path)
    if round_.plan.round != number:
        raise MismatchError(
            f"{exchange.plan(number)}: the plan of round {round_.plan.round}",
            hint="each plan lies in its round's folder",
        )
    return round_


def read_own_upload(path: Path, round_: Round, site: str) -> Ciphertext:
    """The upload that lies in a site's place, which must be that site's."""
    upload = read_upload(path, round_)
    if upload.contribution.site != site:
        raise MismatchError(f"{path.name}: the upload of {upload.contribution.site}", hint="each site uploads its own")
    return upload


def judge_uploads(exchange: Exchange, number: int, round_: Round) -> JudgedUploads:
    """Checks each upload by itself: a bad one is refused with its reason and never stops the others."""
    good: dict[str, str] = {}
    refused: dict[str, str] = {}
    places = {place.name: place for place in exchange.places(Kind.UPLOAD, number)}
    strays = []
    for path in track(_visible(exchange.uploads(number)), "checking uploads"):
        place = places.get(path.relative_to(exchange.root).as_posix())
        if place is None or place.site not in round_.roster.names:
            strays.append(path.name if path.name.isprintable() else ascii(path.name))
            continue
        try:
            _check_readable(path)
            read_own_upload(path, round_, place.site)
        except PermissionError:
            refused[path.name] = f"{path.name}: the coordinator may not read it"
        except UcadiError as error:
            if isinstance(error, OutputError):
                raise
            refused[path.name] = reason(error)
        else:
            good[place.site] = container.file_digest(path)
    return JudgedUploads(good, refused, tuple(strays))


def members_with_partials(
    exchange: Exchange, number: int, round_: Round, keys: SecretKeys | None = None
) -> tuple[list[str], dict[str, str]]:
    """The members whose partial decryption of the round's sum is here, and why others' do not count, by file name.

    With `keys`, a member's, one that does not open for them does not count either.
    """
    partials_of: list[str] = []
    refused: dict[str, str] = {}
    places = exchange.places(Kind.PARTIAL, number)
    total = read_total(exchange, number, round_) if places and exchange.has(Kind.SUM, number) else None
    for place in places:
        path = exchange.root / place.name
        try:
            partial = partial_format.read(path)
            check_partial(partial, round_, path.name)
            if partial.member != place.site:
                raise MismatchError(f"{path.name}: the partial decryption of {partial.member}")
            if total is None or partial.contributions != contributions_digest(total.contributions):
                raise MismatchError(f"{path.name}: for another sum")
            if keys is not None:
                open_partial(partial, round_, keys)
        except UcadiError as error:
            refused[path.name] = reason(error)
        else:
            partials_of.append(place.site)
    return partials_of, refused


def read_total(exchange: Exchange, number: int, round_: Round) -> CiphertextSum:
    """The round's sum, signed by the coordinator and of signed contributions."""
    path = exchange.sum(number)
    total = ciphertext_format.read_sum(path)
    check_sum(total, round_, path.name)
    return total


def read_receipt(exchange: Exchange, number: int, round_: Round) -> tuple[Receipt, str] | None:
    """The round's receipt and its digest, or None; checked against the plan."""
    if not exchange.has(Kind.RECEIPT, number):
        return None
    return read_receipt_file(exchange.receipt(number), round_)


def read_receipt_file(path: Path, round_: Round) -> tuple[Receipt, str]:
    """A receipt and its digest, checked against the plan of its round."""
    receipt, digest = receipt_format.read(path, round_.roster)
    if (receipt.round, receipt.plan, receipt.base) != (round_.plan.round, round_.plan_digest, round_.plan.base):
        raise MismatchError(f"{path.name}: of another round than its plan", hint="do not use it, ask the coordinator")
    if sorted([*receipt.contributions, *receipt.missing]) != list(round_.plan.sites):
        raise MismatchError(
            f"{path.name}: does not say of each site whether it contributed", hint="do not use it, ask the coordinator"
        )
    return receipt, digest


def led_rounds(exchange: Exchange, coordinator: PublicKeys) -> list[int]:
    """The rounds whose plan the coordinator signed for them; what else lies in a plan's place opens none."""
    plans = {number: signed_by(exchange.plan(number), coordinator, Format.PLAN.id) for number in exchange.rounds()}
    return [number for number, plan in plans.items() if plan.get("round") == number]


def is_receipt_of(path: Path, round_: Round) -> bool:
    """Whether a receipt says that it is of this round's plan, and the coordinator signed it; no more is looked at."""
    return signed_by(path, round_.roster.coordinator, receipt_format.FORMAT).get("plan") == round_.plan_digest


def close(exchange: Exchange, number: int, round_: Round, keys: SecretKeys, agreement: Agreement) -> Receipt:
    """Closes the round, or finds it closed; returns its receipt, which is on the disk then.

    Below the quorum the round is void, for good.
    """
    round_.roster.check_led_by(keys)
    with _alone(exchange.plan(number).parent):
        _clear_foreign(exchange, number, round_)
        found = read_receipt(exchange, number, round_)
        if found is not None:
            return found[0]
        check_not_signed(exchange, number, round_.roster)
        _sweep(exchange, number)
        previous = _last_receipt(exchange, number, round_.roster.coordinator)
        uploads = judge_uploads(exchange, number, round_)
        summed = _sum(exchange, number, round_, keys, agreement, uploads)
        contributions = uploads.good if summed is None else {site: uploads.good[site] for site in summed}
        receipt = Receipt(
            federation=round_.plan.federation,
            round=number,
            plan=round_.plan_digest,
            base=round_.plan.base,
            status="void" if summed is None else "closed",
            contributions=contributions,
            refused=uploads.refused,
            missing=tuple(site for site in round_.plan.sites if site not in contributions),
            sum=None if summed is None else container.file_digest(exchange.sum(number)),
            previous=previous,
        )
        receipt_format.write(exchange.make_place(Kind.RECEIPT, number), receipt, keys)
        return receipt


def _sum(
    exchange: Exchange,
    number: int,
    round_: Round,
    keys: SecretKeys,
    agreement: Agreement,
    uploads: JudgedUploads,
) -> tuple[str, ...] | None:
    """Adds the good uploads, unless that was done before; returns the sites in the sum, or None below the quorum.

    Whose uploads they are stands in the ledger before the sum does, so that whoever was killed adds the same again.
    """
    if exchange.has(Kind.SUM, number):
        return _check_standing(exchange, number, round_, uploads)
    begun = agreement.summed(round_)
    sites = sorted(uploads.good) if begun is None else [site for site in begun if site in uploads.good]
    try:
        check_quorum(sites, round_)
    except MismatchError:
        if begun is not None:
            raise
        return None
    good = [exchange.path(Kind.UPLOAD, number, site) for site in sites]
    return write_sum(exchange.make_place(Kind.SUM, number), good, round_, keys, agreement)


def _check_standing(exchange: Exchange, number: int, round_: Round, uploads: JudgedUploads) -> tuple[str, ...]:
    """The sites in a sum that was written before its receipt; MismatchError unless it is that of uploads here."""
    total = read_total(exchange, number, round_)
    present = [site for site in total.sites if site in uploads.good]
    read = [read_own_upload(exchange.path(Kind.UPLOAD, number, site), round_, site) for site in present]
    if [upload.contribution for upload in read] != list(total.contributions):
        raise MismatchError(
            f"{exchange.sum(number)}: lists uploads that are not here",
            hint="uploads must stay as they were: bring them back, and close again",
        )
    check_addition(total, read, exchange.sum(number).name)
    return total.sites


def _last_receipt(exchange: Exchange, number: int, leader: PublicKeys) -> str | None:
    """Digest of the receipt that the next one is chained to; None for the first round."""
    rounds = sorted({number, *led_rounds(exchange, leader)})
    for later in rounds[rounds.index(number) + 1 :]:
        if signed_by(exchange.receipt(later), leader, receipt_format.FORMAT).get("round") == later:
            raise MismatchError(f"round {later} is closed already, round {number} is not", hint="close rounds in order")
    if rounds[0] == number:
        return None
    before = rounds[rounds.index(number) - 1]
    found = read_receipt(exchange, before, read_round(exchange, before))
    if found is None:
        raise MismatchError(f"round {before} is not closed yet", hint=f"ucadi round close --number {before}")
    return found[1]


def _clear_foreign(exchange: Exchange, number: int, round_: Round) -> None:
    """Moves aside what lies in the places of the receipt and the sum and is not signed by the coordinator.

    Not so a receipt where the round was closed before: then it is a damaged one, and no other may be signed.
    """
    leader, plan = round_.roster.coordinator, round_.plan_digest
    if exchange.has(Kind.SUM, number) and not is_signed(exchange.sum(number), leader, plan):
        exchange.clear_place(Kind.SUM, number)
    times = signed_by(exchange.path(Kind.TIMES, number), leader, Format.STATEMENT.id)
    was_closed = exchange.has(Kind.SUM, number) or times.get("plan") == plan
    if exchange.has(Kind.RECEIPT, number) and not is_receipt_of(exchange.receipt(number), round_) and not was_closed:
        exchange.clear_place(Kind.RECEIPT, number)


def _sweep(exchange: Exchange, number: int) -> None:
    """Removes what a closer that was killed left half-written; whoever holds the round is the only one."""
    for path in (exchange.sum(number), exchange.receipt(number)):
        for part in path.parent.glob(f".{path.name}.*.part"):
            if not part.is_dir():
                part.unlink(missing_ok=True)


def reason(error: UcadiError) -> str:
    """Why a file is refused, fit for a receipt: it may quote the file, whose maker must not choose its length."""
    text = error.message if error.message.isprintable() else ascii(error.message)
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, but for temporary files on their way in."""
    if folder.is_symlink() or not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _check_readable(path: Path) -> None:
    """Raises OutputError for a file that this machine cannot read or map: no fault of its site, so no refusal. But who
    forbids it to be read (PermissionError) stops nobody."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).close()
    except PermissionError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}", hint="mend that, and run again") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the round, so that two closers cannot write two sums; the system lets go of it however the process ends.

    A file of its own is locked, since network drives lock nothing that is not open for writing. It stays.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # not on Windows: there, closing once at a time is up to the coordinator
        yield
        return
    lock = folder / ".closing"
    make_way(lock)
    if not os.access(folder, os.W_OK) or (lock.exists() and not os.access(lock, os.W_OK)):
        make_way(lock, lambda _: False)
    with writing(lock), lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{folder}: another process is closing this round", hint="wait for it") from None
        yield
