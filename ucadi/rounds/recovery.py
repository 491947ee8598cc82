"""A ledger that was lost, or is an old copy: what its key signed since, as far as an exchange directory shows it."""

from __future__ import annotations

from collections.abc import Iterator

from ucadi.errors import UcadiError
from ucadi.formats import consent as consent_format
from ucadi.formats import partial as partial_format
from ucadi.formats import statement as statement_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.ledger import Entry, History, What
from ucadi.formats.signed import is_signed
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind, Place
from ucadi.rounds.closing import read_round


def forgotten(exchange: Exchange, keys: SecretKeys, history: History) -> list[Entry]:
    """The lines that a ledger lacks: of uploads and answers that bear these keys' signature, and of the places in the
    ledger that signed documents of theirs name. What was made elsewhere is not seen."""
    known = {(entry.what, entry.document) for entry in history.entries} | {(What.LOST, link) for link in history.links}
    found = dict.fromkeys(entry for place in exchange.places() for entry in _shown(exchange, place, keys))
    return [entry for entry in found if (entry.what, entry.document) not in known]


def _shown(exchange: Exchange, place: Place, keys: SecretKeys) -> Iterator[Entry]:
    """What one file shows that these keys did; nothing if it is not theirs, or no sound file."""
    if place.site != keys.name:
        return
    path = exchange.root / place.name
    try:
        match place.kind:
            case Kind.CONSENT:
                consent = consent_format.read(path, keys.public)
                yield Entry(What.LOST, consent.federation, document=consent.ledger)
            case Kind.METRICS:
                statement = statement_format.read(path, keys.public)
                if statement.ledger is not None:
                    federation = read_round(exchange, place.number).plan.federation
                    yield Entry(What.LOST, federation, document=statement.ledger)
            case Kind.UPLOAD | Kind.PARTIAL:
                round_ = read_round(exchange, place.number)
                if not is_signed(path, keys.public, round_.plan_digest):
                    return
                plan = round_.plan
                if place.kind is Kind.PARTIAL:
                    contributions = partial_format.read(path).contributions
                    yield Entry(What.ANSWERED, plan.federation, plan.round, round_.plan_digest, contributions)
                else:
                    what = What.COUNTED if round_.is_counting else What.ENCRYPTED
                    yield Entry(what, plan.federation, plan.round, round_.plan_digest, base=plan.base)
            case _:
                pass
    except UcadiError:
        return
