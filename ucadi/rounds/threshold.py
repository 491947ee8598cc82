"""Threshold mode: holders answer for a round's sum, once, and enough answers open it.

Every site's secret was split among the roster's members, who are its holders. A holder adds the shares that
it got for the sites in the sum and answers with that; the answers of `threshold` holders give the sum of
the secrets. Fewer, even with the aggregator, learn nothing of any site's update.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ucadi.errors import MismatchError, SignatureError
from ucadi.files import claim_file, make_folder, refuse_existing
from ucadi.formats import partial as partial_format
from ucadi.formats.ciphertext import CiphertextSum, verify_signature
from ucadi.formats.container import canonical_json
from ucadi.formats.partial import Partial
from ucadi.formats.signed import Fields, read_document
from ucadi.identity import AUTHENTICATION_BYTES, SEAL_OVERHEAD, SecretKeys, decrypt_with, encrypt_with
from ucadi.kinds import Format
from ucadi.lwe import shamir
from ucadi.lwe.ring import Secret
from ucadi.lwe.shamir import Share
from ucadi.rounds.opening import opened_seals
from ucadi.rounds.round import Round

LEDGER_FORMAT = Format.LEDGER_ENTRY.id

_KEY_BYTES = 32
_BODY_BYTES = shamir.SHARE_BYTES + AUTHENTICATION_BYTES


def write_answer(
    path: Path, total: CiphertextSum, round_: Round, keys: SecretKeys, ledger: Path, *, force: bool = False
) -> None:
    """Answers for a checked sum with this holder's share of the sum of secrets, sealed to all members.

    Before anything leaves, the set is entered in the ledger for good: for another set of the same round, the
    same holder refuses, since the difference of two sums is what nobody may see.
    """
    refuse_existing(path, force=force)
    share = _add_shares(total, round_, keys)
    contributions = contributions_digest(total)
    _enter(ledger, round_, contributions)
    key = os.urandom(_KEY_BYTES)
    context = _answer_context(round_, keys.name, contributions)
    sealed = [np.frombuffer(member.seal(key, context), np.uint8) for member in round_.roster.members]
    partial_format.write(
        path,
        encrypt_with(key, share.tobytes(), context),
        np.stack(sealed),
        plan=round_.plan_digest,
        contributions=contributions,
        keys=keys,
        force=force,
    )


def combine_answers(answers: Sequence[Partial], total: CiphertextSum, round_: Round, keys: SecretKeys) -> Secret:
    """The sum of the contributing sites' secrets, from at least `threshold` holders' answers sealed to `keys`."""
    shares: dict[int, Share] = {}
    unopened: SignatureError | None = None
    for answer in answers:
        place = round_.roster.names.index(round_.roster.member(answer.holder).name)
        if place in shares:
            raise MismatchError(f"two answers of {answer.holder}", hint="each holder answers once")
        _check_for(answer, total, round_)
        try:
            shares[place] = open_answer(answer, round_, keys)
        except SignatureError as error:  # one holder may seal nonsense to this member: the others' answers count
            unopened = SignatureError(f"answer of {answer.holder}: {error.message}", hint=error.hint)
    threshold = round_.roster.policy.threshold
    if len(shares) < threshold and unopened is not None:
        raise unopened
    if len(shares) < threshold:
        missing = [name for place, name in enumerate(round_.roster.names) if place not in shares]
        raise MismatchError(
            f"{len(shares)} of {threshold} answers",
            hint=f"ask {threshold - len(shares)} more of: {', '.join(missing)}",
        )
    return shamir.combine(shares, threshold)


def check_answer(answer: Partial, round_: Round, name: str) -> None:
    """Raises unless the answer is of this round, signed by the member that it names, and of an answer's size."""
    if answer.plan != round_.plan_digest:
        raise MismatchError(f"{name}: for another sum", hint="all answers must be for the sum that is opened")
    verify_signature(answer.document, round_.roster.member(answer.holder), name)
    if (
        answer.sealed.shape != (len(round_.roster.members), _KEY_BYTES + SEAL_OVERHEAD)
        or len(answer.body) != _BODY_BYTES
    ):
        raise MismatchError(f"{name}: of another size than an answer", hint=f"ask {answer.holder} to answer again")


def contributions_digest(total: CiphertextSum) -> str:
    """What names the set that was added: the sites and the digests of all that they sent."""
    rows = [[c.site, c.ciphertext_digest, c.sealed_digest] for c in total.contributions]
    return hashlib.sha256(canonical_json(rows).encode("ascii")).hexdigest()


def _add_shares(total: CiphertextSum, round_: Round, keys: SecretKeys) -> Share:
    return shamir.add(np.stack([np.frombuffer(opened, "<u2") for opened in opened_seals(total, round_, keys)]))


def _enter(ledger: Path, round_: Round, contributions: str) -> None:
    """Enters the set in the ledger, or finds it there; MismatchError if another set of this round is there."""
    make_folder(ledger, mode=0o700)
    entry = ledger / f"{round_.plan_digest}.json"
    document = {
        **Format.LEDGER_ENTRY.head,
        "federation": round_.plan.federation,
        "round": round_.plan.round,
        "plan": round_.plan_digest,
        "contributions": contributions,
    }
    if claim_file(entry, canonical_json(document).encode("ascii") + b"\n"):
        return
    entered = Fields(read_document(entry, LEDGER_FORMAT), entry.name).digest("contributions")
    if entered != contributions:
        raise MismatchError(
            f"round {round_.plan.round} of {round_.plan.federation}: already answered for another set of sites",
            hint="never answer for two sets: their difference could show one site's update. Open a new round",
        )


def _check_for(answer: Partial, total: CiphertextSum, round_: Round) -> None:
    name = f"answer of {answer.holder}"
    check_answer(answer, round_, name)
    if answer.contributions != contributions_digest(total):
        raise MismatchError(f"{name}: for another sum", hint="all answers must be for the sum that is opened")


def open_answer(answer: Partial, round_: Round, keys: SecretKeys) -> Share:
    """The share that a checked answer holds; SignatureError if it does not open for `keys`."""
    context = _answer_context(round_, answer.holder, answer.contributions)
    key = keys.open(answer.sealed[round_.roster.index(keys)].tobytes(), context)
    return np.frombuffer(decrypt_with(key, answer.body.tobytes(), context), dtype="<u2")


def _answer_context(round_: Round, holder: str, contributions: str) -> bytes:
    """What an answer is bound to. Each member can open it, so it names no receiver."""
    bound = {"contributions": contributions, "holder": holder, "plan": round_.plan_digest}
    return b"ucadi/answer/v1\n" + canonical_json(bound).encode("ascii")
