"""Tags: 128 sums of a ciphertext's words over random subsets, by which a sum is checked without its summands.

A bit of the key stream for each word and subset says whether the word is in it. Tags are linear: the tag of a sum of
ciphertexts is the sum of their tags modulo 2^64. Two different ciphertexts of one length have the same tag with
probability at most 2^-128 over the seed: where they differ in a word, that word's bit alone decides whether a subset's
two sums can be equal, whatever the other bits are.

A processor adds words over subsets fastest as a product of matrices in floating point. Words are split into bytes, so
that the sum over a polynomial stays below 2^20 and is exact in float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ucadi.lwe import randomness
from ucadi.lwe.parameters import DEGREE
from ucadi.lwe.ring import Polynomials

SUBSETS = 128

Tag = npt.NDArray[np.uint64]
"""Sums modulo 2^64, one for each subset, shape (128,)."""

_WORD_BYTES = 8


def tag_of(ciphertext: Polynomials, seed: bytes) -> Tag:
    """The tag of a ciphertext (P, 4096) under the subsets of a 32-byte seed; one polynomial is in memory at a time."""
    total = np.zeros(SUBSETS, dtype=np.uint64)
    shifts = np.arange(0, 8 * _WORD_BYTES, 8, dtype=np.uint64)[:, np.newaxis]
    chosen = np.empty((DEGREE, SUBSETS), dtype=np.float32)
    for first, polynomial in enumerate(ciphertext):
        limbs = polynomial.astype("<u8", copy=False).view(np.uint8).reshape(DEGREE, _WORD_BYTES)
        np.copyto(chosen, randomness.subsets(seed, first * DEGREE, DEGREE, SUBSETS))
        sums = limbs.T.astype(np.float32) @ chosen
        total += (sums.astype(np.uint64) << shifts).sum(axis=0, dtype=np.uint64)
    return total
