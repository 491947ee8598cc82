"""Contributing to a round: a site's update encoded, encrypted and sealed to the members."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ucadi.errors import CapacityError, MismatchError
from ucadi.fed.fixedpoint import Encoder
from ucadi.fed.update import Update
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats.ciphertext import Sealed
from ucadi.formats.container import Stream
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.lwe import randomness, scheme, shamir
from ucadi.lwe.randomness import fresh_seed
from ucadi.lwe.ring import Polynomials
from ucadi.progress import track
from ucadi.rounds.round import Round

ONE_PLAN = (
    "an update belongs to one plan: train for this round again and encrypt that; never encrypt one update for two "
    "rounds, as their difference is one site's update"
)
"""What to do about an update or an upload of another round."""


def check_belongs(update: Update, round_: Round) -> None:
    """Raises MismatchError unless the update was made in this round, from its base, by one of its sites."""
    if update.base != round_.plan.base:
        raise MismatchError(
            f"update of {update.site}: made from base {update.base[:8]}…, the plan says {round_.plan.base[:8]}…",
            hint=ONE_PLAN,
        )
    if update.plan not in (None, round_.plan_digest):
        raise MismatchError(
            f"update of {update.site}: trained under another plan than that of round {round_.plan.round}", hint=ONE_PLAN
        )
    if update.site not in round_.plan.sites:
        raise MismatchError(
            f"update of {update.site}: not a site of this round", hint="sites: " + ", ".join(round_.plan.sites)
        )


def check_contributes(update: Update, round_: Round, keys: SecretKeys) -> None:
    """Raises MismatchError unless the update belongs to the round, and these are its site's keys in the roster."""
    check_belongs(update, round_)
    if keys.name != update.site:
        raise MismatchError(
            f"update of {update.site}: the key is that of {keys.name}", hint="each site encrypts its own"
        )
    round_.roster.index(keys)


def check_fits(update: Update, round_: Round, *, clip: bool, max_rounding: float | None) -> None:
    """Raises CapacityError unless all of the update fits the round: before anything is entered in a ledger."""
    encoder = _encoder(update, round_, clip)
    deque(encoder.pieces(), maxlen=0)
    _check_rounding(encoder, round_, update.weight, max_rounding)


def write_contribution(
    path: Path,
    update: Update,
    round_: Round,
    keys: SecretKeys,
    *,
    members: Sequence[PublicKeys] | None = None,
    clip: bool = False,
    max_rounding: float | None = None,
    force: bool = False,
) -> Encoder:
    """Encrypts the update into `path` for this round and returns how it was encoded.

    CapacityError, and nothing is written, where rounding loses more than `max_rounding` of it. `members` are the
    roster's, with the keys to seal to where these are others (`ucadi.rounds.sealing.receivers`).
    """
    to = round_.roster.members if members is None else members
    check_contributes(update, round_, keys)
    encoder = _encoder(update, round_, clip)
    secret_seed = fresh_seed()
    digest = hashlib.sha256()

    def blocks() -> Iterator[Polynomials]:
        encrypted = scheme.encrypt(
            _unsigned(encoder, round_), round_.values, round_.packing, round_.public_seed, secret_seed
        )
        for block in track(encrypted, "encrypting", total=-(-round_.polynomials // scheme.BLOCK)):
            digest.update(block.data)
            yield block

        _check_rounding(encoder, round_, update.weight, max_rounding)

    parts = _secret_parts(secret_seed, round_)

    def seals() -> Iterator[Sealed]:
        for member, part in zip(to, parts, strict=True):
            context = round_.seal_context(update.site, member.name, digest.hexdigest())
            yield np.frombuffer(member.seal(part, context), dtype=np.uint8)

    sealed = Stream("U8", round_.seals, seals())
    ciphertext_format.write_ciphertext(
        path,
        blocks(),
        round_.polynomials,
        sealed,
        plan=round_.plan_digest,
        keys=keys,
        force=force,
    )
    return encoder


def _check_rounding(encoder: Encoder, round_: Round, weight: int, most: float | None) -> None:
    """Raises CapacityError, with the weight cap that fits, where more was lost than may be."""
    if most is not None and encoder.rounding > most:
        raise CapacityError(
            f"rounding loses {encoder.rounding:.3g} of this update, at most {most:g} is admitted",
            hint=f"open the round with a --weight-cap nearer to the sites' largest weight: it is "
            f"{round_.plan.weight_cap}, this update's is {weight}",
        )


def _encoder(update: Update, round_: Round, clip: bool) -> Encoder:
    return Encoder(update, round_.plan.layout, cap=round_.plan.weight_cap, bits=round_.bits, clip=clip)


def _secret_parts(secret_seed: bytes, round_: Round) -> list[bytes]:
    """What each member gets of the secret: in members mode its seed, in threshold mode a share of it."""
    members = len(round_.roster.members)
    if round_.plan.mode == "members":
        return [secret_seed] * members
    secret = randomness.secret_polynomial(secret_seed)
    return [share.tobytes() for share in shamir.split(secret, members, round_.roster.policy.threshold)]


def _unsigned(encoder: Encoder, round_: Round) -> Iterator[scheme.Values]:
    """The encoded vector as unsigned slots: the weight as it is, every value raised by 2^(bits - 1)."""
    pieces = encoder.pieces()
    yield next(pieces).astype(np.uint64)
    for piece in pieces:
        yield (piece + (1 << (round_.bits - 1))).astype(np.uint64)
