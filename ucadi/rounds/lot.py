"""Which members a round asks, where not all: drawn by a lot that nobody can steer and everyone can draw again.

Each member commits, in its consent, to the end of a chain of digests whose beginning only its key gives, and reveals
one link a round, in its statement on the round before. The lot is a digest over all links: whoever fixed the plan, the
roster or its own chain did so before it knew the others' next links. While one is missing, all members are asked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

from ucadi.errors import UcadiError
from ucadi.formats import statement as statement_format
from ucadi.formats.roster import Roster
from ucadi.formats.signed import Fields, read_document
from ucadi.identity import SecretKeys
from ucadi.kinds import Format, Kind, Place
from ucadi.rounds.consents import consents_beside, read_consents

ROUNDS = 10_000
"""Links of a chain: as many as rounds have numbers."""


def anchor(keys: SecretKeys, federation: str) -> str:
    """The end of a member's chain, in hex: what its consent commits to."""
    return link(keys, federation, 0)


def link(keys: SecretKeys, federation: str, number: int) -> str:
    """The link for the round `number`, in hex: its digest, `number` times over, is the anchor."""
    begin = hmac.digest(keys.signing, b"ucadi/lot/v1\n" + federation.encode(), "sha256")
    return _hashed(begin, ROUNDS - number).hex()


def is_link(text: str, number: int, anchored: str) -> bool:
    """Whether a link for the round `number` leads to the anchor."""
    return 0 < number <= ROUNDS and _hashed(bytes.fromhex(text), number).hex() == anchored


def links(roster: Roster, number: int, exchange: Path) -> dict[str, str]:
    """The links that members revealed for the round `number`, by site, from their statements on the round before.

    Only if that round was under this very roster: then its anchors are older than any of the links. What does not lead
    to the anchor of its consent is not there.
    """
    if not _is_under(exchange / Place(Kind.PLAN, number - 1).name, roster):
        return {}
    found = {}
    for name, consent in read_consents(roster, exchange / consents_beside(exchange / "-").name).items():
        path = exchange / Place(Kind.METRICS, number - 1, name).name
        try:
            said = statement_format.read(path, roster.member(name)).lot
        except UcadiError:
            continue
        if said is not None and is_link(said, number, consent.lot):
            found[name] = said
    return found


def _is_under(plan: Path, roster: Roster) -> bool:
    try:
        return Fields(read_document(plan, Format.PLAN.id), plan.name).digest("roster") == roster.digest
    except UcadiError:
        return False


def drawn(roster: Roster, number: int, sites: int, revealed: Mapping[str, str]) -> tuple[str, ...]:
    """So many members for the round `number`, sorted; all of them while a link of any is missing."""
    if set(revealed) != set(roster.names):
        return roster.names
    seed = hashlib.sha256(
        "\n".join(["ucadi/drawn/v1", roster.digest, str(number), *sorted(revealed.values())]).encode()
    )

    def lot(name: str) -> bytes:
        return hashlib.sha256(seed.digest() + name.encode()).digest()

    first: Sequence[str] = sorted(roster.names, key=lot)[: max(sites, roster.policy.minimum_sites)]
    return tuple(sorted(first))


def _hashed(value: bytes, times: int) -> bytes:
    for _ in range(times):
        value = hashlib.sha256(value).digest()
    return value
