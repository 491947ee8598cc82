"""Tags against Python's integers, from docs/formats/ciphertext.md alone; linear; and no change that they miss."""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.lwe import scheme
from ucadi.lwe.parameters import DEGREE
from ucadi.lwe.tags import SUBSETS, tag_of

SEED = bytes(range(32))
SEEDS = st.binary(min_size=32, max_size=32)
EXTREMES = st.sampled_from([0, 1, 2**16 - 1, 2**32, 2**63, 2**64 - 1])


def by_hand(words: list[int], seed: bytes) -> list[int]:
    """Bit j of the 128-bit little-endian block i says whether word i is in subset j."""
    key = hashlib.sha256(b"ucadi/lwe/tag/v1\0" + seed).digest()
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(16 * len(words)))
    blocks = [int.from_bytes(stream[16 * i : 16 * i + 16], "little") for i in range(len(words))]
    pairs = list(zip(words, blocks, strict=True))
    return [sum(word for word, block in pairs if block >> j & 1) % 2**64 for j in range(SUBSETS)]


def random_words(rng: np.random.Generator, polynomials: int) -> np.ndarray:
    return rng.integers(0, 2**64, (polynomials, DEGREE), dtype=np.uint64)


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_tags_are_what_plain_integers_give(seed: bytes, polynomials: int, drawn: int) -> None:
    words = random_words(np.random.default_rng(drawn), polynomials)
    assert tag_of(words, seed).tolist() == by_hand(words.ravel().tolist(), seed)


@settings(max_examples=6, deadline=None)
@given(EXTREMES, EXTREMES)
def test_tags_of_extremes_are_exact(even: int, odd: int) -> None:
    words = np.full((2, DEGREE), even, np.uint64)
    words[:, 1::2] = odd
    assert tag_of(words, SEED).tolist() == by_hand(words.ravel().tolist(), SEED)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_tags_add_as_ciphertexts_do(seed: bytes, sites: int, drawn: int) -> None:
    rng = np.random.default_rng(drawn)
    parts = [random_words(rng, 2) for _ in range(sites)]
    tags = np.stack([tag_of(part, seed) for part in parts])
    np.testing.assert_array_equal(tag_of(scheme.add(parts), seed), tags.sum(axis=0, dtype=np.uint64))


def test_a_changed_bit_is_seen_at_any_place_by_about_half_of_the_subsets() -> None:
    """Even the top bit of one word, whose change is the same in both directions."""
    rng = np.random.default_rng(1)
    words = random_words(rng, 3)
    before = tag_of(words, SEED)
    seen = []
    for place in rng.choice(words.size, 200, replace=False):
        words.ravel()[place] ^= np.uint64(1 << 63)
        seen.append(int((tag_of(words, SEED) != before).sum()))
        words.ravel()[place] ^= np.uint64(1 << 63)
    assert min(seen) > 30
    assert abs(np.mean(seen) - SUBSETS / 2) < 2


def test_words_that_change_places_are_seen_and_another_seed_has_other_subsets() -> None:
    words = random_words(np.random.default_rng(2), 2)
    swapped = words[::-1].copy()
    assert (tag_of(words, SEED) != tag_of(swapped, SEED)).sum() > SUBSETS / 2
    assert (tag_of(words, SEED) != tag_of(words, SEED[::-1])).all()


def test_a_ciphertext_that_only_can_be_read_is_tagged_as_it_lies() -> None:
    words = random_words(np.random.default_rng(3), 2)
    words.flags.writeable = False
    np.testing.assert_array_equal(tag_of(words[::-1], SEED), tag_of(words[::-1].copy(), SEED))
