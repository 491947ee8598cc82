"""Whether a file is what its place says, by the word of who makes it: asked of what comes, and of what is in its way.

So nobody without a key puts a file where another belongs, and what somebody has put there stops nothing.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ucadi.errors import MismatchError, UcadiError
from ucadi.formats import consent as consent_format
from ucadi.formats import handover as handover_format
from ucadi.formats import partial as partial_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats import statement as statement_format
from ucadi.formats import tag as tag_format
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.signed import is_signed, signed_by
from ucadi.identity import PublicKeys
from ucadi.kinds import Kind, Place
from ucadi.rounds.closing import is_receipt_of, read_own_upload, read_receipt, read_roster, read_round
from ucadi.rounds.handing import check_handover
from ucadi.rounds.round import Round
from ucadi.rounds.threshold import check_partial


def check_vouched(path: Path, place: Place, exchange: Exchange, round_: Round) -> None:
    """Raises a UcadiError that names the place unless the file at `path` may lie in it, a place of that round.

    A model is vouched for by its plan, a sum by its receipt, an opened sum by its site's statement; these are looked
    for in `exchange`. All else bears its maker's signature.
    """
    if place.site and place.site not in round_.roster.names:
        raise MismatchError(
            f"{place.name}: {place.site} is no member", hint="members: " + ", ".join(round_.roster.names)
        )
    match place.kind:
        case Kind.PLAN:
            if Round.read(path, exchange.roster(place.number)).plan_digest != round_.plan_digest:
                raise MismatchError(f"{place.name}: another plan")
        case Kind.RECEIPT:
            receipt_format.read(path, round_.roster)
        case Kind.MODEL if file_digest(path) != round_.plan.base:
            raise MismatchError(f"{place.name}: not the weights that the plan of round {place.number} names")
        case Kind.SUM:
            found = read_receipt(exchange, place.number, round_)
            if found is None or file_digest(path) != found[0].sum:
                raise MismatchError(f"{place.name}: not the sum that a receipt of round {place.number} names")
        case Kind.UPLOAD:
            read_own_upload(path, round_, place.site)
        case Kind.PARTIAL:
            partial = partial_format.read(path)
            check_partial(partial, round_, place.name)
            if partial.member != place.site:
                raise MismatchError(f"{place.name}: the partial decryption of {partial.member}")
        case Kind.TAG:
            found_tag = tag_format.read(path, round_.roster)
            if (found_tag.site, found_tag.plan) != (place.site, round_.plan_digest):
                raise MismatchError(f"{place.name}: not the tag of {place.site} for this round")
        case Kind.HANDOVER:
            handover = handover_format.read(path)
            check_handover(handover, round_, place.name)
            if handover.site != place.site:
                raise MismatchError(f"{place.name}: the handover of {handover.site}")
        case Kind.TIMES:
            _check_statement(path, place, round_, round_.roster.coordinator)
        case Kind.METRICS:
            _check_statement(path, place, round_, round_.roster.member(place.site))
        case Kind.OPENED:
            said = exchange.path(Kind.METRICS, place.number, place.site)
            statement = statement_format.read(said, round_.roster.member(place.site))
            if (statement.plan, statement.opened) != (round_.plan_digest, file_digest(path)):
                raise MismatchError(f"{place.name}: not the opened sum that the statement of {place.site} names")
        case kind if kind.format.signed:  # of any other kind at least its maker's signature is looked at
            maker = round_.roster.member(place.site) if place.site else round_.roster.coordinator
            if not (signed_by(path, maker, kind.format.id) or is_signed(path, maker, round_.plan_digest)):
                raise MismatchError(f"{place.name}: not signed by {maker.name}", hint=f"ask {maker.name} for it")
        case _:
            pass


def check_consent(path: Path, place: Place, exchange: Exchange) -> None:
    """Raises a UcadiError unless the file at `path` is the consent of that place's site to the roster of its number."""
    rosters = (read_roster(exchange, one) for one in exchange.rosters())
    roster = next((one for one in rosters if one.sequence == place.number), None)
    if roster is None:
        raise MismatchError(f"{place.name}: no roster {place.number}, neither here nor brought", hint="bring all of it")
    consent = consent_format.read(path, roster.member(place.site))
    consent_format.check_for(consent, roster, place.name)


def newest_roster(exchange: Exchange) -> Roster:
    """The newest of the rosters that the coordinator of the first one has signed."""
    for path in reversed(exchange.rosters()):
        with suppress(UcadiError):
            return read_roster(exchange, path)
    return read_roster(exchange, exchange.path(Kind.ROSTER, 0))


def standing_receipt(exchange: Exchange, number: int, round_: Round) -> tuple[Receipt, str] | None:
    """The round's receipt and its digest; None where there is none that the coordinator signed for its plan."""
    return read_receipt(exchange, number, round_) if is_receipt_of(exchange.receipt(number), round_) else None


def is_vouched(place: Place, exchange: Exchange) -> bool:
    """Whether the file that lies in a place of the exchange is what the place says."""
    path = exchange.root / place.name
    try:
        if place.kind is Kind.ROSTER:
            read_roster(exchange, path)
        elif place.kind is Kind.CONSENT:
            check_consent(path, place, exchange)
        else:
            check_vouched(path, place, exchange, read_round(exchange, place.number))
    except UcadiError:
        return False
    return True


def _check_statement(path: Path, place: Place, round_: Round, keys: PublicKeys) -> None:
    if statement_format.read(path, keys).plan != round_.plan_digest:
        raise MismatchError(f"{place.name}: a statement on another round")
