"""Auditing a federation: round after round, does each file follow from those before, as far as they are at hand?

Needs no key. A break is an error that names its round; what could not be looked at is said, not passed over.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ucadi.errors import CapacityError, FormatError, MismatchError
from ucadi.filetypes import no_folder
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_own_upload, read_receipt, read_round, read_total
from ucadi.rounds.following import next_weights
from ucadi.rounds.histories import check_one_history
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Voided, agreed, read_statements
from ucadi.rounds.tagging import how_checked, read_round_tags
from ucadi.rounds.verdict import Verdict

_ASK = "do not go on from here, and ask the coordinator"


@dataclass(frozen=True)
class AuditedRound:
    """What was found to be true of a round. `base` and `sum` say what was compared, or why it could not be; the
    verdicts say the same for programs. An open round, and a void one, have no sum that could be wrong."""

    number: int
    status: str
    sites: tuple[str, ...]
    base: str
    sum: str
    base_verdict: Verdict
    sum_verdict: Verdict


_Found = tuple[Verdict, str]
"""A verdict, and in words what it rests on."""


@dataclass(frozen=True)
class _Ended:
    """A round that was audited; `receipt` and its digest are None while it is open."""

    number: int
    round_: Round
    receipt: Receipt | None
    digest: str | None


@dataclass(frozen=True)
class Aside:
    """What an auditor has beside the exchange: weights by their digest, opened sums by their plan's."""

    weights: Mapping[str, Path] = field(default_factory=dict)
    opened: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Aside:
        """Finds weights and opened sums in a folder, a site's private one for instance."""
        if not folder.is_dir():
            raise FormatError(no_folder(folder, "a folder of models and opened sums"), hint="a site's .work folder")
        weights = {file_digest(path): path for path in sorted(folder.glob("*.weights"))}
        opened = {update_format.read_aggregate(path).plan: path for path in sorted(folder.glob("*.aggregate"))}
        return cls(weights, opened)


def audit_rounds(exchange: Exchange, aside: Aside) -> tuple[AuditedRound, ...]:
    """Audits all rounds in order; MismatchError names the first that does not follow from what was before."""
    numbers = exchange.rounds()
    _check_plans(exchange, numbers)
    audited = []
    before: _Ended | None = None
    for number in numbers:
        with _naming(number):
            if before is not None and before.receipt is None:
                raise MismatchError(f"opened though round {before.number} has no receipt", hint=_ASK)
            round_ = read_round(exchange, number)
            base = _check_base(exchange, aside, number, round_.plan.base, before)
            found = read_receipt(exchange, number, round_)
            ended = _Ended(number, round_, *(found or (None, None)))
            if ended.receipt is not None:
                check_one_history(exchange, ended.receipt, round_.roster)
                _check_chain(ended.receipt, before, number)
            audited.append(_audit_end(exchange, ended, base))
            before = ended
    if before is not None and exchange.has(Kind.MODEL, before.number + 1):
        with _naming(before.number + 1):
            following = file_digest(exchange.model(before.number + 1))
            _check_base(exchange, aside, before.number + 1, following, before)
    return tuple(audited)


def _check_plans(exchange: Exchange, numbers: list[int]) -> None:
    """A round without its plan cannot be audited, and must not be passed over."""
    for place in exchange.places():
        if place.kind.of_round and place.number not in numbers:
            raise MismatchError(f"round {place.number}: {place.name}, but no plan", hint="bring the plan, or " + _ASK)


def _check_chain(receipt: Receipt, before: _Ended | None, number: int) -> None:
    # of a chain whose beginning is not at hand, the first receipt here cannot be compared
    if before is None and number > 1:
        return
    if receipt.previous != (None if before is None else before.digest):
        raise MismatchError("its receipt does not follow the receipt of the round before", hint=_ASK)


def _check_base(exchange: Exchange, aside: Aside, number: int, base: str, before: _Ended | None) -> _Found:
    """Says how the digest `base`, which a round begins with, follows from the round before."""
    model = exchange.model(number)
    if exchange.has(Kind.MODEL, number) and file_digest(model) != base:
        raise MismatchError(f"{model.name}: not the weights that the plan names", hint=_ASK)
    if before is None:
        if number == 1:
            return Verdict.VERIFIED, "the first"
        return Verdict.SIGNATURE_ONLY, "not recomputed: the round before is not at hand"
    if before.receipt is None:
        return Verdict.SIGNATURE_ONLY, "not recomputed: the round before is open"
    if before.receipt.status == "void":
        if base != before.round_.plan.base:
            raise MismatchError(f"begins with other weights than round {before.number}, which is void", hint=_ASK)
        return Verdict.VERIFIED, "that of the round before, which is void"
    if base == before.round_.plan.base and (voided := _voided(exchange, before)):
        return Verdict.VERIFIED, f"that of the round before, which the sites state is void: {voided.reason}"
    opened = {place.site: exchange.root / place.name for place in exchange.places(Kind.OPENED, before.number)}
    if (own := aside.opened.get(before.round_.plan_digest)) is not None:
        opened["one's own folder"] = own
    if not opened:
        return Verdict.SIGNATURE_ONLY, "not recomputed: the opened sum is not at hand"
    published = exchange.has(Kind.MODEL, before.number)
    weights = exchange.model(before.number) if published else aside.weights.get(before.round_.plan.base)
    if weights is None:
        return Verdict.SIGNATURE_ONLY, "not recomputed: the weights before are not at hand"
    wrong: list[str] = []
    for whose, path in opened.items():
        try:
            led_to = _recompute(weights, before, before.receipt, path)
        except (FormatError, MismatchError):
            led_to = None
        if led_to != base:
            wrong.append(whose)
    if len(wrong) == len(opened):
        raise MismatchError(
            f"its base is not the model that round {before.number} leads to, by the sum that {', '.join(wrong)} opened",
            hint=_ASK,
        )
    if wrong:
        return Verdict.NOT_RECOMPUTED, f"recomputed; but what {', '.join(wrong)} opened leads elsewhere"
    return Verdict.VERIFIED, "recomputed"


def _voided(exchange: Exchange, ended: _Ended) -> Voided | None:
    """How the statements that are here make a closed round void, if they do."""
    if ended.receipt is None:
        return None
    with suppress(MismatchError):
        statements = read_statements(exchange, ended.number, ended.round_)
        outcome = agreed(statements, ended.receipt, ended.round_, late=True)
        return outcome if isinstance(outcome, Voided) else None
    return None


def _recompute(weights: Path, before: _Ended, receipt: Receipt, opened: Path) -> str:
    """Digest of the weights that a round leads to: what `ucadi apply` writes."""
    round_, aggregate = before.round_, update_format.read_aggregate(opened)
    if list(aggregate.sites) != sorted(receipt.contributions):
        raise MismatchError(f"{opened.name}: the sum of other sites than the receipt names")
    base = weights_format.read(weights)
    following = next_weights(base, aggregate, round_, change=file_digest(opened), name=opened.name)
    with tempfile.TemporaryDirectory(prefix="ucadi-") as folder:
        written = Path(folder) / "following.weights"
        weights_format.write(written, following)
        return file_digest(written)


def _audit_end(exchange: Exchange, ended: _Ended, base: _Found) -> AuditedRound:
    """What the receipt says, compared with the uploads and the sum that are at hand."""
    number, round_, receipt = ended.number, ended.round_, ended.receipt
    there = exchange.has(Kind.SUM, number)
    if receipt is None:
        if there:
            read_total(exchange, number, round_)
        found = (Verdict.SIGNATURE_ONLY, "signed; no receipt yet") if there else (Verdict.VERIFIED, "none yet")
        return _audited(number, "open", (), base, found)
    sites = tuple(sorted(receipt.contributions))
    at_hand = [site for site in sites if exchange.has(Kind.UPLOAD, number, site)]
    for site in at_hand:
        if file_digest(exchange.path(Kind.UPLOAD, number, site)) != receipt.contributions[site]:
            raise MismatchError(f"the upload of {site} is not the one that the receipt names", hint=_ASK)
    if receipt.status == "void":
        if there:
            raise MismatchError("the receipt says void, and yet there is a sum", hint=_ASK)
        return _audited(number, "void", sites, base, (Verdict.VERIFIED, "none"))
    return _audited(number, "closed", sites, base, _check_sum(exchange, ended, receipt, at_hand))


def _audited(number: int, status: str, sites: tuple[str, ...], base: _Found, total: _Found) -> AuditedRound:
    return AuditedRound(number, status, sites, base[1], total[1], base[0], total[0])


def _check_sum(exchange: Exchange, ended: _Ended, receipt: Receipt, at_hand: list[str]) -> _Found:
    number, path = ended.number, exchange.sum(ended.number)
    if not exchange.has(Kind.SUM, number):
        return Verdict.NOT_RECOMPUTED, "not at hand"
    if file_digest(path) != receipt.sum:
        raise MismatchError("the sum is not the one that the receipt names", hint=_ASK)
    total = read_total(exchange, number, ended.round_)
    if list(total.sites) != sorted(receipt.contributions):
        raise MismatchError("the sum is of other sites than the receipt names", hint=_ASK)
    uploads = [read_own_upload(exchange.path(Kind.UPLOAD, number, site), ended.round_, site) for site in at_hand]
    tags = None if ended.digest is None else read_round_tags(exchange, number, ended.round_, receipt, ended.digest)
    if how := how_checked(total, path, uploads, tags):
        return Verdict.VERIFIED, how
    here = f"{len(at_hand)} of {len(total.sites)} uploads and {0 if tags is None else len(tags.tags)} tags at hand"
    return Verdict.SIGNATURE_ONLY, f"signed; not checked: {here}"


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Whatever is wrong with a file of a round breaks the round, and says which."""
    try:
        yield
    except (FormatError, MismatchError, CapacityError) as error:
        raise MismatchError(f"round {number}: {error.message}", hint=error.hint) from None
