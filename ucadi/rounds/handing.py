"""Handing a round's model to who joins: sealed by a member to the round's roster, opened by any of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from ucadi.errors import FormatError, MismatchError, Unsound
from ucadi.files import new_file
from ucadi.formats import handover as handover_format
from ucadi.formats.container import canonical_json, file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.handover import Handover
from ucadi.formats.receipt import Receipt
from ucadi.formats.signed import verify
from ucadi.formats.statement import Statement
from ucadi.identity import SEAL_OVERHEAD, SecretKeys, decrypt_stream, encrypt_stream
from ucadi.kinds import Format, Kind
from ucadi.rounds.round import Round

UNREADABLE: Final = frozenset({Unsound.SEALS, Unsound.SHARES})
"""Reasons for which a sum is of no use to one member, and may be of use to others."""

_KEY_BYTES = 32

_GIVERS = 3
"""Members who seal the model for newcomers: more than one, as one may vanish."""


def write_handover(path: Path, weights: Path, round_: Round, keys: SecretKeys, *, force: bool = False) -> None:
    """Seals the weights that the round begins with to all members of its roster, signed by the member `keys`."""
    if file_digest(weights) != round_.plan.base:
        raise MismatchError(
            f"{weights.name}: not the weights that round {round_.plan.round} begins with",
            hint="hand over the model that the plan names",
        )
    round_.roster.index(keys)
    key, context = os.urandom(_KEY_BYTES), _context(round_, keys.name)
    sealed = np.stack([np.frombuffer(member.seal(key, context), np.uint8) for member in round_.roster.members])
    encrypted = encrypt_stream(key, _blocks(weights), context)
    size = weights.stat().st_size
    handover_format.write(path, size, encrypted, sealed, plan=round_.plan_digest, keys=keys, force=force)


def check_handover(handover: Handover, round_: Round, name: str) -> None:
    """Raises unless the handover is of this round, by a member of its roster, of the shape that it must have."""
    if handover.plan != round_.plan_digest:
        raise MismatchError(f"{name}: the model of another round", hint="use the plan that it was sealed for")
    verify(handover.document, round_.roster.member(handover.site), name)
    if handover.sealed.shape != (len(round_.roster.members), _KEY_BYTES + SEAL_OVERHEAD) or not len(handover.body):
        raise MismatchError(f"{name}: of another size than a handover", hint=f"ask {handover.site} to seal it again")


def open_handover(handover: Handover, round_: Round, keys: SecretKeys, path: Path, *, force: bool = False) -> None:
    """Opens a checked handover into `path`; MismatchError unless it holds the weights that the plan names."""
    context = _context(round_, handover.site)
    key = keys.open(handover.sealed[round_.roster.index(keys)].tobytes(), context)
    with new_file(path, force=force, mode=Format.WEIGHTS.mode) as part:
        with part.open("wb") as file:
            for block in decrypt_stream(key, handover.blocks(), context):
                file.write(block)
        if file_digest(part) != round_.plan.base:
            raise MismatchError(
                f"handover of {handover.site}: not the weights that round {round_.plan.round} begins with",
                hint="ask another member for the model",
            )


def take_over(exchange: Exchange, number: int, round_: Round, keys: SecretKeys, path: Path) -> str | None:
    """Opens a handover of the round's model into `path` and returns its giver; None if there is none that is good."""
    for place in exchange.places(Kind.HANDOVER, number):
        if place.site == keys.name or place.site not in round_.roster.names:
            continue
        try:
            handover = handover_format.read(exchange.root / place.name)
            check_handover(handover, round_, place.name)
            if handover.site == place.site:
                open_handover(handover, round_, keys, path)
                return handover.site
        except (FormatError, MismatchError):
            continue  # another member's may be good
    return None


def has_to_hand_over(
    name: str, round_: Round, before: Round, receipt: Receipt, statements: Mapping[str, Statement]
) -> bool:
    """Whether the member is one of those who seal the model for who is new since the round before, or could not open
    its sum and says so."""
    new = set(round_.roster.names) - set(before.roster.names)
    unable = {site for site, statement in statements.items() if statement.void in UNREADABLE}
    if round_.plan.base != before.plan.base:
        new |= unable
    givers = [site for site in sorted(receipt.contributions) or before.plan.sites if site not in unable]
    return bool(new) and name in [site for site in givers if site in round_.roster.names][:_GIVERS]


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(handover_format.BLOCK):
            yield block


def _context(round_: Round, sender: str) -> bytes:
    """What a handover is bound to. Each member can open it, so it names no receiver."""
    bound = {"base": round_.plan.base, "plan": round_.plan_digest, "sender": sender}
    return b"ucadi/handover/v1\n" + canonical_json(bound).encode("ascii")
