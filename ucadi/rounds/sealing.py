"""Sealing keys that are for one round: members publish them a round ahead, and delete their secret half afterwards.

So whoever gets hold of a member's long-term key later opens nothing of the rounds before. A statement on the round that
led to this one's base says the member's key; it is signed, and names its round, so nobody can put another key or an
older one in its place. Whoever withholds it makes a site seal to the long-term key, as it does for who has stated none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ucadi.errors import MismatchError
from ucadi.formats.exchange import Exchange
from ucadi.formats.statement import Statement
from ucadi.identity import PublicKeys
from ucadi.rounds.closing import read_receipt, read_round
from ucadi.rounds.round import Round
from ucadi.rounds.succession import read_statements

RoundKeys = Mapping[str, bytes]
"""Public sealing keys for a round by member, of 1,216 bytes; members without one have their long-term key."""


def round_keys(exchange: Exchange, round_: Round) -> RoundKeys:
    """The members' sealing keys for this round, as their statements on the last closed round before it have them.

    A member whose keys in the roster have changed since has none.
    """
    return {site: said.next_sealing for site, said in _said(exchange, round_).items() if said.next_sealing is not None}


def receivers(round_: Round, keys: RoundKeys) -> tuple[PublicKeys, ...]:
    """The roster's members, each with the key that a secret of this round is sealed to."""
    return tuple(replace(member, sealing=keys.get(member.name, member.sealing)) for member in round_.roster.members)


def members_here(folder: Path, round_: Round) -> tuple[PublicKeys, ...]:
    """The receivers, by the statements in an exchange directory; MismatchError unless it has this round's plan."""
    exchange, number = Exchange(folder), round_.plan.round
    if number not in exchange.rounds() or read_round(exchange, number).plan_digest != round_.plan_digest:
        raise MismatchError(
            f"{folder}: not the exchange directory of this plan", hint="it has another plan for that round, or none"
        )
    return receivers(round_, round_keys(exchange, round_))


def _said(exchange: Exchange, round_: Round) -> Mapping[str, Statement]:
    now = {member.name: member for member in round_.roster.members}
    for number in sorted((n for n in exchange.rounds() if n < round_.plan.round), reverse=True):
        before = read_round(exchange, number)
        found = read_receipt(exchange, number, before)
        if found is not None and found[0].status == "closed":
            said = read_statements(exchange, number, before)
            return {site: one for site, one in said.items() if now.get(site) == before.roster.member(site)}
    return {}
