"""Encryption, addition and decryption of vectors of small unsigned integers.

    b_i = A * s_i + e_i + 2^d * M_i        in R, for every polynomial of the message

A is public and common to all ciphertexts of a round; s_i is one fresh secret per ciphertext; e_i are fresh
errors; M_i packs two message values into each coefficient. Ciphertexts add word by word. Their sum is
decrypted by the sum S of the secrets, and by nothing else:

    sum of b_i - A * S = sum of e_i + 2^d * sum of M_i

Everything works on blocks of polynomials, so that a message of any length needs bounded memory.

Source: Brakerski and Vaikuntanathan, CRYPTO 2011 (ring LWE); common A and summed secrets as in
Mouchet et al., PoPETs 2021 (multiparty homomorphic encryption).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ucadi.errors import SignatureError, Unsound, UnsoundError
from ucadi.lwe import randomness, ring
from ucadi.lwe.parameters import DEGREE, NOISE_BOUND, SLOTS, VALUES, Packing, polynomials
from ucadi.lwe.ring import Polynomials, Secret

_ZEROS_BY_CHANCE = 4
"""Zeros among the last slots that a foreign secret does not give: each is one by a chance of less than 2^-25."""

Values = npt.NDArray[np.uint64]
"""Message values, shape (n,)."""

BLOCK = 16
"""Polynomials worked at a time: half a MiB of ciphertext, and transforms that a processor's cache holds."""


def encrypt(
    values: Iterable[Values], count: int, packing: Packing, public_seed: bytes, secret_seed: bytes
) -> Iterator[Polynomials]:
    """Encrypts `count` values, given in pieces of any length; yields blocks of polynomials.

    Each value must be below 2^value_bits of the packing. `secret_seed` must be fresh for every message.
    """
    s = randomness.secret_polynomial(secret_seed)
    first = 0
    for block in _in_blocks(values, polynomials(count)):
        A = randomness.public_polynomials(public_seed, first, len(block))
        e = randomness.error_polynomials(len(block)).view(np.uint64)
        yield ring.multiply(A, s) + e + (_pack(block, packing) << np.uint64(packing.noise_bits))
        first += len(block)


def decrypt(
    ciphertext: Polynomials, count: int, summands: int, packing: Packing, public_seed: bytes, secret: Secret
) -> Iterator[Values]:
    """Yields the `count` sums that a sum of `summands` ciphertexts holds, in pieces; `secret` is the sum S.

    Raises SignatureError where `opens` says no, and what it raises.
    """
    # The zeros come last; they are checked before anything is given out.
    if not opens(ciphertext[-1:], len(ciphertext) - 1, count, summands, packing, public_seed, secret):
        raise SignatureError(
            "the decrypted sum fails its check",
            hint="a seal or a share is wrong, or the ciphertext is not the sum of the uploads that it lists",
        )
    for first in range(0, len(ciphertext), BLOCK):
        values = _decrypt_block(ciphertext[first : first + BLOCK], first, packing, public_seed, secret)
        yield values[: max(0, count - first * VALUES)]


def opens(
    last: Polynomials, number: int, count: int, summands: int, packing: Packing, public_seed: bytes, secret: Secret
) -> bool:
    """Whether `secret` is the sum of the secrets of `summands` ciphertexts of `count` values, by the zeros at the end.

    `last` is the last polynomial of their sum, (1, 4096), and `number` its place in it from 0. A foreign secret is
    larger than secrets are, or decrypts no zero to zero. UnsoundError where it decrypts some: then it is the right one,
    and a message did not end with zeros.
    """
    if np.abs(secret).max() > NOISE_BOUND * summands:
        return False
    zeros = _decrypt_block(last, number, packing, public_seed, secret)[max(0, count - number * VALUES) :] == 0
    if not zeros.all() and zeros.sum() >= _ZEROS_BY_CHANCE:
        raise UnsoundError(
            "the decrypted sum fails its check: it does not end with zeros, as every update does",
            Unsound.PADDING,
            hint="a site has sent something else than an update: the round is void, open a new one",
        )
    return bool(zeros.all())


def add(ciphertexts: Iterable[Polynomials]) -> Polynomials:
    """The sum of ciphertexts of one round, word by word modulo 2^64; the order does not matter."""
    parts = iter(ciphertexts)
    total = np.array(next(parts), dtype=np.uint64)
    for part in parts:
        total += part
    return total


def _decrypt_block(ciphertext: Polynomials, first: int, packing: Packing, public_seed: bytes, secret: Secret) -> Values:
    A = randomness.public_polynomials(public_seed, first, len(ciphertext))
    noisy = ciphertext - ring.multiply(A, secret)
    half = np.uint64(1 << (packing.noise_bits - 1))
    return _unpack((noisy + half) >> np.uint64(packing.noise_bits), packing)


def _pack(values: npt.NDArray[np.uint64], packing: Packing) -> Polynomials:
    """(P, 2, 4096) values to (P, 4096) coefficients: the first slot in the lower bits."""
    return values[:, 0] | (values[:, 1] << np.uint64(packing.slot_bits))


def _unpack(coefficients: Polynomials, packing: Packing) -> Values:
    """(P, 4096) coefficients to (P * 8192,) values. A coefficient's bits above both slots are kept in the second."""
    low = coefficients & np.uint64((1 << packing.slot_bits) - 1)
    high = coefficients >> np.uint64(packing.slot_bits)
    return np.stack([low, high], axis=1).reshape(-1)


def _in_blocks(pieces: Iterable[Values], count: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Pieces of any length as `count` polynomials' worth of values, zeros appended: blocks (P, 2, 4096)."""
    source = iter(pieces)
    rest = np.empty(0, dtype=np.uint64)
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first) * VALUES
        block = np.zeros(size, dtype=np.uint64)
        filled = 0
        while filled < size:
            if not len(rest):
                rest = next(source, rest)
                if not len(rest):
                    break
            taken = rest[: size - filled]
            block[filled : filled + len(taken)] = taken
            filled += len(taken)
            rest = rest[len(taken) :]
        yield block.reshape(-1, SLOTS, DEGREE)
    if len(rest) or any(len(piece) for piece in source):
        raise ValueError("more values than were announced")
