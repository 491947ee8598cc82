"""Where the scheme's polynomials come from: public ones from a seed that all know, secrets and errors
from the operating system.

All expansion is AES-256 in counter mode (NIST SP 800-38A) under a key that is SHA-256 of a domain tag
and the seed, so no two uses ever share a key stream. No seed can be set by a user.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ucadi.lwe.parameters import DEGREE
from ucadi.lwe.ring import Polynomials, Secret

SEED_BYTES = 32

_POLYNOMIAL_BYTES = 8 * DEGREE
_AES_BLOCK = 16


def fresh_seed() -> bytes:
    """32 bytes from the operating system, for one secret."""
    return os.urandom(SEED_BYTES)


def public_polynomials(seed: bytes, first: int, count: int) -> Polynomials:
    """The polynomials A[first : first + count] of the infinite list that belongs to a public seed.

    Each is 4096 little-endian 64-bit words of the key stream: uniform modulo 2^64 without rejection. The
    counter makes any of them reachable without those before, so that long messages are worked in blocks.
    """
    stream = _key_stream(b"ucadi/lwe/public/v1", seed, first * _POLYNOMIAL_BYTES, count * _POLYNOMIAL_BYTES)
    return np.frombuffer(stream, dtype="<u8").reshape(count, DEGREE)


def secret_polynomial(seed: bytes) -> Secret:
    """The secret s of a secret seed, centred binomial with standard deviation 4."""
    return _centred_binomial(_key_stream(b"ucadi/lwe/secret/v1", seed, 0, _POLYNOMIAL_BYTES))


def error_polynomials(count: int) -> npt.NDArray[np.int64]:
    """Fresh errors, shape (count, 4096), centred binomial with standard deviation 4; never reproducible."""
    return _centred_binomial(os.urandom(count * _POLYNOMIAL_BYTES)).reshape(count, DEGREE)


def subsets(seed: bytes, first: int, count: int, number: int) -> npt.NDArray[np.uint8]:
    """Which of the words first..first+count of a long vector are in each of `number` random subsets, a multiple of 128.

    Shape (count, number), 0 or 1: the bits of the key stream, `number` a word, from the lowest of the first byte on.
    """
    stream = _key_stream(b"ucadi/lwe/tag/v1", seed, first * number // 8, count * number // 8)
    return np.unpackbits(np.frombuffer(stream, np.uint8).reshape(count, -1), axis=1, bitorder="little")


def _centred_binomial(noise: bytes) -> npt.NDArray[np.int64]:
    """popcount(u) - popcount(v) for consecutive 32-bit words u, v: in -32..32, variance 16."""
    ones = np.bitwise_count(np.frombuffer(noise, dtype="<u4")).astype(np.int64)
    difference: npt.NDArray[np.int64] = ones[0::2] - ones[1::2]
    return difference


def _key_stream(tag: bytes, seed: bytes, start: int, length: int) -> bytes:
    """Bytes start..start+length of the key stream of (tag, seed); `start` is a multiple of an AES block."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    key = hashlib.sha256(tag + b"\0" + seed).digest()
    counter = (start // _AES_BLOCK).to_bytes(_AES_BLOCK, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(length))
