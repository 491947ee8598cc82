"""Threshold mode: members help to open a round's sum, once each, and enough partial decryptions open it.

Every site's secret was split among the roster's members, the share holders of `lwe`. A member adds the shares that
it got for the sites in the sum and gives that as its partial decryption; those of `threshold` members give the sum
of the secrets. Fewer, even with the aggregator, learn nothing of any site's update.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucadi.errors import MismatchError, SignatureError, Unsound, UnsoundError
from ucadi.files import refuse_existing
from ucadi.formats import partial as partial_format
from ucadi.formats.ciphertext import CiphertextSum, verify_signature
from ucadi.formats.container import canonical_json
from ucadi.formats.partial import Partial
from ucadi.identity import AUTHENTICATION_BYTES, SEAL_OVERHEAD, PublicKeys, SecretKeys, decrypt_with, encrypt_with
from ucadi.lwe import shamir
from ucadi.lwe.correction import is_exhaustive, recover
from ucadi.lwe.ring import Secret
from ucadi.lwe.shamir import Share
from ucadi.rounds.collection import contributions_digest
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.opening import fits, opened_seals
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
    members: Sequence[PublicKeys] | None = None,
    unchecked: Sequence[str],
    force: bool = False,
) -> None:
    """Makes this member's partial decryption of a checked sum, its share of the sum of secrets, sealed to all members
    (with the keys in `members`, where these are others than the roster's).

    Before anything leaves, the set is entered in the ledger for good: for another set of the same round, the
    same member refuses, since the difference of two sums is what nobody may see. It states whose tags were missing.
    """
    refuse_existing(path, force=force)
    share = _add_shares(total, round_, keys)
    contributions = contributions_digest(total.contributions)
    agreement.enter_answer(contributions, round_)
    key = os.urandom(_KEY_BYTES)
    context = _partial_context(round_, keys.name, contributions)
    sealed = [np.frombuffer(member.seal(key, context), np.uint8) for member in members or round_.roster.members]
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


class UnsettledError(SignatureError):
    """Shares that disagree, so that it cannot be said yet which are right: more of them can settle it."""


@dataclass(frozen=True)
class Combined:
    """The sum of the contributing sites' secrets, and the members whose shares in it are wrong."""

    secret: Secret
    false_shares: tuple[str, ...]


def combine_partials(partials: Sequence[Partial], total: CiphertextSum, round_: Round, keys: SecretKeys) -> Combined:
    """The sum of the contributing sites' secrets, from `threshold` partial decryptions or more, sealed to `keys`.

    Wrong ones are found, as `ucadi.lwe.correction` says. MismatchError where there are too few, UnsettledError where
    too many are wrong, UnsoundError where they are and no member is left that could settle it.
    """
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
    found = recover(shares, threshold, lambda secret: fits(total, round_, secret))
    if found is None:
        raise _disagreement(shares, round_)
    return Combined(found.secret, tuple(round_.roster.names[place] for place in found.wrong))


def _disagreement(shares: Mapping[int, Share], round_: Round) -> SignatureError:
    """What to say of shares that no secret fits."""
    names, threshold = round_.roster.names, round_.roster.policy.threshold
    given, silent = ([name for p, name in enumerate(names) if (p in shares) is here] for here in (True, False))
    message = f"the shares of {', '.join(given)} do not open the sum: fewer than {threshold} of them are right"
    if not silent:
        hint = "no member is left to ask: the round is void, open a new one"
        return UnsoundError(message, Unsound.SHARES, hint=hint)
    liars = (len(given) - threshold) // 2 + 1
    least = 1 if is_exhaustive(len(given), threshold) else threshold + 2 * liars - len(given)
    return UnsettledError(
        f"{message}; at least {least} more can settle it", hint=f"ask {least} more of: {', '.join(silent)}"
    )


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
