"""Threshold mode: members help to open a round's sum, once each, and enough partial decryptions open it.

Every site's secret was split among the roster's members, the share holders of `lwe`. A member adds the shares that
it got for the sites in the sum and gives that as its partial decryption; those of `threshold` members give the sum
of the secrets. Fewer, even with the aggregator, learn nothing of any site's update.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ucadi.errors import MismatchError, SignatureError
from ucadi.files import refuse_existing
from ucadi.formats import partial as partial_format
from ucadi.formats.ciphertext import CiphertextSum, verify_signature
from ucadi.formats.container import canonical_json
from ucadi.formats.partial import Partial
from ucadi.identity import AUTHENTICATION_BYTES, SEAL_OVERHEAD, SecretKeys, decrypt_with, encrypt_with
from ucadi.lwe import shamir
from ucadi.lwe.ring import Secret
from ucadi.lwe.shamir import Share
from ucadi.rounds.collection import contributions_digest
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.opening import opened_seals
from ucadi.rounds.round import Round

_KEY_BYTES = 32
_BODY_BYTES = shamir.SHARE_BYTES + AUTHENTICATION_BYTES


def write_partial(
    path: Path,
    total: CiphertextSum,
    round_: Round,
    keys: SecretKeys,
    agreement: Agreement,
    *,
    unchecked: Sequence[str],
    force: bool = False,
) -> None:
    """Makes this member's partial decryption of a checked sum, its share of the sum of secrets, sealed to all members.

    Before anything leaves, the set is entered in the ledger for good: for another set of the same round, the
    same member refuses, since the difference of two sums is what nobody may see. It states whose tags were missing.
    """
    refuse_existing(path, force=force)
    share = _add_shares(total, round_, keys)
    contributions = contributions_digest(total.contributions)
    agreement.enter_answer(contributions, round_)
    key = os.urandom(_KEY_BYTES)
    context = _partial_context(round_, keys.name, contributions)
    sealed = [np.frombuffer(member.seal(key, context), np.uint8) for member in round_.roster.members]
    partial_format.write(
        path,
        encrypt_with(key, share.tobytes(), context),
        np.stack(sealed),
        plan=round_.plan_digest,
        contributions=contributions,
        unchecked=unchecked,
        keys=keys,
        force=force,
    )


def combine_partials(partials: Sequence[Partial], total: CiphertextSum, round_: Round, keys: SecretKeys) -> Secret:
    """The sum of the contributing sites' secrets, from `threshold` partial decryptions or more, sealed to `keys`."""
    shares: dict[int, Share] = {}
    unopened: SignatureError | None = None
    for partial in partials:
        place = round_.roster.names.index(round_.roster.member(partial.member).name)
        if place in shares:
            raise MismatchError(f"two partial decryptions of {partial.member}", hint="each member makes one")
        _check_for(partial, total, round_)
        try:
            shares[place] = open_partial(partial, round_, keys)
        except SignatureError as error:  # one member may seal nonsense to this one: the others' count
            unopened = SignatureError(f"partial decryption of {partial.member}: {error.message}", hint=error.hint)
    threshold = round_.roster.policy.threshold
    if len(shares) < threshold and unopened is not None:
        raise unopened
    if len(shares) < threshold:
        missing = [name for place, name in enumerate(round_.roster.names) if place not in shares]
        raise MismatchError(
            f"{len(shares)} of {threshold} partial decryptions",
            hint=f"ask {threshold - len(shares)} more of: {', '.join(missing)}",
        )
    return shamir.combine(shares, threshold)


def check_partial(partial: Partial, round_: Round, name: str) -> None:
    """Raises unless it is of this round, signed by the member that it names, and of a partial decryption's size."""
    if partial.plan != round_.plan_digest:
        raise MismatchError(
            f"{name}: for another sum", hint="all partial decryptions must be for the sum that is opened"
        )
    verify_signature(partial.document, round_.roster.member(partial.member), name)
    if (
        partial.sealed.shape != (len(round_.roster.members), _KEY_BYTES + SEAL_OVERHEAD)
        or len(partial.body) != _BODY_BYTES
    ):
        raise MismatchError(
            f"{name}: of another size than a partial decryption", hint=f"ask {partial.member} to make it again"
        )


def _add_shares(total: CiphertextSum, round_: Round, keys: SecretKeys) -> Share:
    return shamir.add(np.stack([np.frombuffer(opened, "<u2") for opened in opened_seals(total, round_, keys)]))


def _check_for(partial: Partial, total: CiphertextSum, round_: Round) -> None:
    name = f"partial decryption of {partial.member}"
    check_partial(partial, round_, name)
    if partial.contributions != contributions_digest(total.contributions):
        raise MismatchError(
            f"{name}: for another sum", hint="all partial decryptions must be for the sum that is opened"
        )


def open_partial(partial: Partial, round_: Round, keys: SecretKeys) -> Share:
    """The share that a checked partial decryption holds; SignatureError if it does not open for `keys`."""
    context = _partial_context(round_, partial.member, partial.contributions)
    key = keys.open(partial.sealed[round_.roster.index(keys)].tobytes(), context)
    return np.frombuffer(decrypt_with(key, partial.body.tobytes(), context), dtype="<u2")


def _partial_context(round_: Round, member: str, contributions: str) -> bytes:
    """What a partial decryption is bound to. Each member can open it, so it names no receiver."""
    bound = {"contributions": contributions, "holder": member, "plan": round_.plan_digest}
    return b"ucadi/answer/v1\n" + canonical_json(bound).encode("ascii")
