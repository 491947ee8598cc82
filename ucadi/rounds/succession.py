"""How one round follows another, for a coordinator that can open no sum: by what the members state of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from ucadi.errors import FormatError, MismatchError
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.plan import Plan
from ucadi.formats import statement as statement_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.statement import Statement, Vote
from ucadi.kinds import Kind
from ucadi.rounds.round import Round

VOTES: Final = "votes"
"""Why a round is void whose model those who compared it voted against; other reasons are `ucadi.errors.Unsound`."""

LEAST_VOTES: Final = 2
"""Votes that a majority must be of."""


@dataclass(frozen=True)
class Following:
    """What a closed round leads to: the digest of the weights, and the magnitudes of their tensors."""

    model: str
    exponents: tuple[int, ...]


@dataclass(frozen=True)
class Voided:
    """A closed round that leads to nothing, why (`VOTES` or an `Unsound`), and which sites said so."""

    reason: str
    sites: tuple[str, ...]


def read_statements(exchange: Exchange, number: int, round_: Round) -> dict[str, Statement]:
    """The members' statements on a round, by site; those that are not theirs, or not of this round, are not counted."""
    found = {}
    for place in exchange.places(Kind.METRICS, number):
        if place.site in round_.roster.names:
            try:
                statement = statement_format.read(exchange.root / place.name, round_.roster.member(place.site))
            except (FormatError, MismatchError):
                continue
            if statement.plan == round_.plan_digest:
                found[place.site] = statement
    return found


def agreed(
    statements: Mapping[str, Statement], receipt: Receipt, round_: Round, *, late: bool = False
) -> Following | Voided | None:
    """What the contributing sites say that a closed round leads to; None while those who are silent can change it.

    More than half must state one model: every honest site computes the same to the last bit. The round is void if more
    than half find its sum of no use, or if some do and no model can have its majority any more; and if of those who
    compared the model with its base, two or more, most find it worse. Once it is `late`, nobody waits for more votes.
    Raises MismatchError, naming who states what, once all have spoken, for several models, and none has its majority.
    """
    spoken = {site: statements[site] for site in sorted(receipt.contributions) if site in statements}
    count, silent = len(receipt.contributions), len(receipt.contributions) - len(spoken)
    said: dict[Following, list[str]] = defaultdict(list)
    for site, statement in spoken.items():
        if statement.model is not None and len(statement.exponents) == len(round_.plan.layout.tensors):
            said[Following(statement.model, statement.exponents)].append(site)
    unsound = {site: statement.void for site, statement in spoken.items() if statement.void is not None}
    most = max(map(len, said.values()), default=0)
    if 2 * len(unsound) > count or (unsound and 2 * (most + silent) <= count):
        reasons = Counter(unsound.values())
        return Voided(min(reasons, key=lambda reason: (-reasons[reason], reason)), tuple(unsound))
    for following, sites in said.items():
        if 2 * len(sites) > count:
            return _voted(following, {site: spoken[site].vote for site in sites}, 0 if late else silent)
    if not silent and len(said) > 1:
        views = "; ".join(f"{', '.join(sites)}: {view.model[:8]}…" for view, sites in said.items())
        raise MismatchError(
            f"round {receipt.round}: the sites disagree on the model that it leads to: {views}",
            hint="compare the releases of ucadi at the sites, and open the next round by hand",
        )
    return None


def votes_of(statements: Mapping[str, Statement], receipt: Receipt) -> dict[str, str]:
    """The votes of the contributing sites that compared the model with its base."""
    said = {site: statements[site].vote for site in sorted(receipt.contributions) if site in statements}
    return {site: vote.value for site, vote in said.items() if vote is not None}


def _voted(following: Following, votes: Mapping[str, Vote | None], silent: int) -> Following | Voided | None:
    """What the votes make of a model; None while so many more can change it."""
    worse = tuple(site for site, vote in votes.items() if vote is Vote.WORSE)
    others = sum(vote is Vote.NOT_WORSE for vote in votes.values())
    outcomes = {_is_voted_down(len(worse) + more, others + silent - more) for more in range(silent + 1)}
    outcomes |= {_is_voted_down(len(worse), others)}
    if len(outcomes) > 1:
        return None
    return Voided(VOTES, worse) if outcomes.pop() else following


def _is_voted_down(worse: int, others: int) -> bool:
    return worse + others >= LEAST_VOTES and worse > others


def next_plan(
    round_: Round, following: Following | Voided | None, roster: Roster, names: tuple[str, ...], headroom: int
) -> Plan:
    """The plan after this round's: the same but for base, ranges, roster and who is in: the members `names`.

    A void round leads to nothing: the next one begins with its base again.
    """
    plan = round_.plan
    changed = replace(
        plan,
        round=plan.round + 1,
        roster=roster.digest,
        mode=roster.policy.mode,
        sites=names,
        quorum=min(plan.quorum, len(names)),
    )
    if not isinstance(following, Following):
        return changed
    ranges = zip(plan.layout.tensors, following.exponents, strict=True)
    layout = Layout(tuple(TensorRange(t.name, t.shape, exponent + headroom) for t, exponent in ranges))
    return replace(changed, base=following.model, layout=layout)
