"""Uploads and partial decryptions as a malicious site makes them: well formed, signed and sealed, and false."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ucadi.fed.fixedpoint import Encoder
from ucadi.fed.update import Update
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats.container import Stream, tensor_digest
from ucadi.identity import SecretKeys
from ucadi.lwe import randomness, scheme, shamir
from ucadi.lwe.parameters import DEGREE
from ucadi.rounds.round import Round

Words = Callable[[np.ndarray], object]
"""Alters a ciphertext's words, (polynomials, 4096)."""

Parts = Callable[[list[bytes]], object]
"""Alters what is sealed to each member, in the roster's order."""


def add_to_value(round_: Round, index: int, amount: int) -> Words:
    """Adds to one value of the vector, the weight being the first; negative amounts borrow from its neighbour."""
    polynomial, slot = divmod(index, 8192)
    shift = round_.packing.noise_bits + (round_.packing.slot_bits if slot >= 4096 else 0)

    def change(words: np.ndarray) -> None:
        words[polynomial, slot % 4096 : slot % 4096 + 1] += np.uint64((amount << shift) % (1 << 64))

    return change


def write_false_upload(
    path: Path, update: Update, round_: Round, keys: SecretKeys, change: Words, parts: Parts | None = None
) -> None:
    """Encrypts an update, alters the ciphertext as it likes, and seals and signs the result as the program would."""
    seed = randomness.fresh_seed()
    encoder = Encoder(update, round_.plan.layout, cap=round_.plan.weight_cap, bits=round_.bits)
    pieces = list(encoder.pieces())
    raised = np.concatenate([pieces[0], *(piece + (1 << (round_.bits - 1)) for piece in pieces[1:])])
    blocks = scheme.encrypt([raised.astype(np.uint64)], round_.values, round_.packing, round_.public_seed, seed)
    words = np.concatenate(list(blocks))
    change(words)
    members = round_.roster.members
    if round_.plan.mode == "members":
        sealed = [seed] * len(members)
    else:
        secret = randomness.secret_polynomial(seed)
        sealed = [s.tobytes() for s in shamir.split(secret, len(members), round_.roster.policy.threshold)]
    if parts is not None:
        parts(sealed)
    rows = [
        np.frombuffer(member.seal(part, round_.seal_context(keys.name, member.name, tensor_digest(words))), np.uint8)
        for member, part in zip(members, sealed, strict=True)
    ]
    stream = Stream("U8", round_.seals, rows)
    ciphertext_format.write_ciphertext(
        path, [words], len(words), stream, plan=round_.plan_digest, keys=keys, force=True
    )


def deal_falsely(to: Sequence[int], coefficients: int = DEGREE) -> Parts:
    """Gives the members at these places other shares than the polynomial's, in the first coefficients."""

    def change(sealed: list[bytes]) -> None:
        for place in to:
            share = np.frombuffer(sealed[place], "<u2").astype(np.int64)
            share[:coefficients] += 1 + np.arange(coefficients) % 1000 + place
            sealed[place] = (share % shamir.PRIME).astype("<u2").tobytes()

    return change


def lie_in_partials(monkeypatch: pytest.MonkeyPatch, coefficients: int = DEGREE, offset: int = 1) -> None:
    """From now on, partial decryptions made in this process hold a wrong share."""
    honest = shamir.add

    def false(shares: np.ndarray) -> np.ndarray:
        share = honest(shares).astype(np.int64)
        share[:coefficients] += offset
        return (share % shamir.PRIME).astype("<u2")

    monkeypatch.setattr(shamir, "add", false)
