"""Where a round stands: who is in, missing, late or refused and why, and whose partial decryptions are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ucadi.errors import MismatchError
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.formats.statement import Statement
from ucadi.kinds import Kind
from ucadi.rounds.closing import (
    JudgedUploads,
    judge_uploads,
    members_with_partials,
    read_receipt,
    read_round,
    read_total,
)
from ucadi.rounds.consents import consents_beside, missing_consents
from ucadi.rounds.round import Round
from ucadi.rounds.succession import Voided, agreed, read_statements, votes_of
from ucadi.rounds.tagging import false_tag, how_checked, read_round_tags, read_uploads
from ucadi.rounds.verdict import Verdict


@dataclass(frozen=True)
class Standing:
    """Where a round stands. `state` is open, summed (a sum, but no receipt yet), closed or void.

    `late` are good uploads that came after the round had ended, `strays` files that are no site's upload.
    """

    round: int
    state: str
    quorum: int
    contributed: tuple[str, ...]
    late: tuple[str, ...]
    missing: tuple[str, ...]
    refused: dict[str, str]
    strays: tuple[str, ...]
    partials_of: tuple[str, ...]
    partials_needed: int
    tags_of: tuple[str, ...] = ()
    not_accepted_by: tuple[str, ...] = ()
    """Whose consent to the round's roster is not here: it waits for people there."""
    outcome: str | None = None
    """What the contributing sites say that a closed round leads to: `model DIGEST`, `void: WHY`, or None as yet."""
    votes: dict[str, str] = field(default_factory=dict)
    """Whether the model is worse than the base, by each site that compared them."""
    false_shares: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Members whose shares in the sum are false, and who says so."""

    def __str__(self) -> str:
        rows = {
            "contributed": ", ".join(self.contributed) or "nobody",
            "not accepted": ", ".join(self.not_accepted_by)
            and f"the roster, by {', '.join(self.not_accepted_by)}: ucadi roster accept, there",
            "missing": ", ".join(self.missing),
            "late": ", ".join(self.late) and f"{', '.join(self.late)} (changes nothing)",
            "strays": ", ".join(self.strays),
            "partials": ", ".join(self.partials_of),
            "tags": ", ".join(self.tags_of),
        }
        lines = [f"  {label + ':':<13}{text}" for label, text in rows.items() if text]
        lines += [f"  refused:     {reason}" for reason in self.refused.values()]
        lines += [f"  vote:        {site}: {vote}" for site, vote in self.votes.items()]
        lines += [f"  false share: of {name}, say {', '.join(by)}" for name, by in self.false_shares.items()]
        lines += [f"  leads to:    {self.outcome}"] if self.outcome else []
        return "\n".join([f"round {self.round} is {self.state}; quorum {self.quorum}", *lines])


def standing(exchange: Exchange, number: int) -> Standing:
    """Looks at a round's files, uploads and all; a bad upload is refused and never an error."""
    round_ = read_round(exchange, number)
    uploads = judge_uploads(exchange, number, round_)
    found = read_receipt(exchange, number, round_)
    receipt = found[0] if found else None
    partials_of, partials_refused = members_with_partials(exchange, number, round_)
    contributed, late, refused = _against(receipt, uploads)
    tags_of, tags_refused = _judge_tags(exchange, number, round_, found)
    statements = read_statements(exchange, number, round_)
    accused = sorted({name for statement in statements.values() for name in statement.false_shares})
    return Standing(
        round=number,
        state=receipt.status if receipt else "summed" if exchange.has(Kind.SUM, number) else "open",
        quorum=max(round_.plan.quorum, round_.roster.policy.minimum_sites),
        contributed=contributed,
        late=late,
        missing=tuple(site for site in round_.plan.sites if site not in (*contributed, *late)),
        refused={**refused, **tags_refused, **partials_refused},
        strays=uploads.strays,
        partials_of=tuple(partials_of),
        partials_needed=round_.roster.policy.threshold,
        tags_of=tags_of,
        not_accepted_by=missing_consents(
            round_.roster, round_.plan.sites, consents_beside(exchange.path(Kind.ROSTER, 0))
        ),
        outcome=_outcome(statements, receipt, round_),
        votes=votes_of(statements, receipt) if receipt else {},
        false_shares={
            name: tuple(site for site, one in sorted(statements.items()) if name in one.false_shares)
            for name in accused
        },
    )


def _outcome(statements: Mapping[str, Statement], receipt: Receipt | None, round_: Round) -> str | None:
    if receipt is None or receipt.status == "void":
        return None
    try:
        outcome = agreed(statements, receipt, round_)
    except MismatchError as error:
        return error.message
    if isinstance(outcome, Voided):
        return f"void: {outcome.reason}, say {', '.join(outcome.sites)}"
    return None if outcome is None else f"model {outcome.model}"


def check_round_sum(exchange: Exchange, number: int) -> Verdict:
    """Checks the sum of a round by its uploads or its tags, as far as they are here; MismatchError if it is not theirs.

    A round that has no sum, as it is open or void, has nothing to recompute.
    """
    if not exchange.has(Kind.SUM, number):
        return Verdict.VERIFIED
    round_ = read_round(exchange, number)
    total = read_total(exchange, number, round_)
    uploads = read_uploads(exchange, number, round_, total.sites)
    found = read_receipt(exchange, number, round_)
    tags = read_round_tags(exchange, number, round_, *found) if found else None
    how = how_checked(total, exchange.sum(number), list(uploads.values()), tags)
    return Verdict.VERIFIED if how else Verdict.SIGNATURE_ONLY


def _judge_tags(
    exchange: Exchange, number: int, round_: Round, found: tuple[Receipt, str] | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The sites whose tag is here, and by file name why others' do not count; an upload shows that one is false."""
    if found is None:
        return (), {}
    tags = read_round_tags(exchange, number, round_, *found)
    false = tags.false(read_uploads(exchange, number, round_, tuple(tags.tags)))
    refused = {**tags.refused, **{f"{site}.json": false_tag(site) for site in false}}
    return tuple(site for site in tags.tags if site not in false), refused


def _against(
    receipt: Receipt | None, uploads: JudgedUploads
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """Who contributed, who came late and what was refused: as the receipt has it, once there is one."""
    if receipt is None:
        return tuple(uploads.good), (), uploads.refused
    late = tuple(site for site in uploads.good if site not in receipt.contributions)
    changed = {
        f"{site}.enc": f"{site}.enc: not the file that the receipt names"
        for site, digest in uploads.good.items()
        if receipt.contributions.get(site, digest) != digest
    }
    return tuple(sorted(receipt.contributions)), late, {**receipt.refused, **uploads.refused, **changed}
