"""How one round follows another, for a coordinator that can open no sum: by what the members state of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from ucadi.errors import FormatError, MismatchError
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.plan import Plan
from ucadi.formats import statement as statement_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.formats.roster import Roster
from ucadi.formats.statement import Statement
from ucadi.kinds import Kind
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class Following:
    """What a closed round leads to: the digest of the weights, and the magnitudes of their tensors."""

    model: str
    exponents: tuple[int, ...]


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


def agreed(statements: dict[str, Statement], receipt: Receipt, round_: Round) -> Following | None:
    """What more than half of the contributing sites state; None while too few have spoken.

    Every honest site computes the same to the last bit. Raises MismatchError, naming who states what, once all have
    spoken and there is no such majority.
    """
    said: dict[Following, list[str]] = defaultdict(list)
    for site in receipt.contributions:
        statement = statements.get(site, Statement(site, round_.plan_digest))
        if statement.model is not None and len(statement.exponents) == len(round_.plan.layout.tensors):
            said[Following(statement.model, statement.exponents)].append(site)
    for following, sites in said.items():
        if 2 * len(sites) > len(receipt.contributions):
            return following
    if sum(map(len, said.values())) == len(receipt.contributions):
        views = "; ".join(f"{', '.join(sites)}: {view.model[:8]}…" for view, sites in said.items())
        raise MismatchError(
            f"round {receipt.round}: the sites disagree on the model that it leads to: {views}",
            hint="compare the releases of ucadi at the sites, and open the next round by hand",
        )
    return None


def next_plan(
    round_: Round, following: Following | None, roster: Roster, names: tuple[str, ...], headroom: int
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
    if following is None:
        return changed
    ranges = zip(plan.layout.tensors, following.exponents, strict=True)
    layout = Layout(tuple(TensorRange(t.name, t.shape, exponent + headroom) for t, exponent in ranges))
    return replace(changed, base=following.model, layout=layout)
