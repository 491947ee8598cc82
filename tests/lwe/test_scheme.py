"""Encrypt, add, decrypt: exact at the extremes, in any order, and only with the right secrets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hints import raises_with_hint
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.errors import CapacityError, SignatureError
from ucadi.lwe import randomness, scheme
from ucadi.lwe.parameters import CHECK_VALUES, DEGREE, MAX_SUMMANDS, VALUES, Packing, polynomials

PUBLIC = bytes(range(32))


def encrypt(values: np.ndarray, packing: Packing, seed: bytes, pieces: int = 1) -> np.ndarray:
    blocks = scheme.encrypt(np.array_split(values, pieces), len(values), packing, PUBLIC, seed)
    return np.concatenate(list(blocks))


def decrypt(total: np.ndarray, count: int, summands: int, packing: Packing, secret: np.ndarray) -> np.ndarray:
    return np.concatenate(list(scheme.decrypt(total, count, summands, packing, PUBLIC, secret)))


@settings(max_examples=25, deadline=None)
@given(
    count=st.sampled_from([1, 100, VALUES - CHECK_VALUES, VALUES - CHECK_VALUES + 1, VALUES - 1, VALUES, 3 * VALUES])
    | st.integers(1, 2 * VALUES),
    planned=st.integers(1, 64),
    pieces=st.integers(1, 5),
    data=st.data(),
)
def test_the_sum_decrypts_exactly(count: int, planned: int, pieces: int, data: st.DataObject) -> None:
    summands = data.draw(st.integers(1, min(planned, 4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    packing = Packing(planned)
    messages = [rng.integers(0, 1 << packing.value_bits, count, dtype=np.uint64) for _ in range(summands)]
    seeds = [randomness.fresh_seed() for _ in messages]
    ciphertexts = [encrypt(m, packing, seed, pieces) for m, seed in zip(messages, seeds, strict=True)]
    total = scheme.add(ciphertexts)
    np.testing.assert_array_equal(total, scheme.add(ciphertexts[::-1]))
    secret = np.sum([randomness.secret_polynomial(seed) for seed in seeds], axis=0)
    np.testing.assert_array_equal(decrypt(total, count, summands, packing, secret), np.sum(messages, axis=0))


@pytest.mark.parametrize("count", [16 * VALUES - 10, 40 * VALUES + 1])
def test_messages_of_several_blocks_decrypt_exactly(count: int) -> None:
    """The first count has zeros to check, and nothing else, in its last block."""
    packing, seed = Packing(2), randomness.fresh_seed()
    message = np.random.default_rng(count).integers(0, 1 << packing.value_bits, count, dtype=np.uint64)
    ciphertext = encrypt(message, packing, seed, pieces=3)
    assert ciphertext.shape == (polynomials(count), DEGREE)
    np.testing.assert_array_equal(decrypt(ciphertext, count, 1, packing, randomness.secret_polynomial(seed)), message)


@pytest.mark.parametrize("summands", [1, 4, 1000])
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_noise_is_rounded_away_in_all_its_room(summands: int, end: str) -> None:
    """A ciphertext under the secret zero, whose noise is as large as it may be in every coefficient."""
    packing = Packing(summands)
    room = 1 << (packing.noise_bits - 1)
    noise = np.int64(-room if end == "lowest" else room - 1).view(np.uint64)
    message = np.zeros((1, DEGREE), dtype=np.uint64)
    message[0, :7] = np.arange(7)
    ciphertext = (message << np.uint64(packing.noise_bits)) + noise
    found = decrypt(ciphertext, DEGREE, 1, packing, np.zeros(DEGREE, dtype=np.int64))
    np.testing.assert_array_equal(found, message[0])


@pytest.mark.parametrize("summands", [3, 64, 1000])
def test_known_sums_at_the_extremes(summands: int) -> None:
    """Every site sends the largest value in one slot, nothing in the next: the slots must not touch."""
    packing = Packing(summands)
    largest = (1 << packing.value_bits) - 1
    message = np.tile(np.array([largest, 0, largest, 1], dtype=np.uint64), 2500)
    total = np.zeros((polynomials(len(message)), DEGREE), dtype=np.uint64)
    secret = np.zeros(DEGREE, dtype=np.int64)
    for _ in range(summands):
        seed = randomness.fresh_seed()
        total += encrypt(message, packing, seed)
        secret += randomness.secret_polynomial(seed)
    np.testing.assert_array_equal(
        decrypt(total, len(message), summands, packing, secret), message * np.uint64(summands)
    )


def test_slots_hold_their_sums_and_errors_stay_apart() -> None:
    for summands in range(1, MAX_SUMMANDS + 1):
        packing = Packing(summands)
        assert packing.noise_bits + 2 * packing.slot_bits <= 64
        assert summands * ((1 << packing.value_bits) - 1) < 1 << packing.slot_bits
        one_bit_more = summands * ((1 << (packing.value_bits + 1)) - 1)
        assert packing.value_bits == 24 or one_bit_more >= 1 << packing.slot_bits
        assert packing.failure_bound(730_000) < -128


@pytest.mark.parametrize(
    ("summands", "values", "coefficients", "exponent"),
    # 2^(2d-2) / (32 K) for d = 7, 8, 8, 9 bits of noise
    [(1, 1, DEGREE, 128), (2, VALUES, 2 * DEGREE, 256), (4, 2 * VALUES, 3 * DEGREE, 128), (16, 1, DEGREE, 128)],
)
def test_the_bound_on_failures_by_hand(summands: int, values: int, coefficients: int, exponent: int) -> None:
    bound = Packing(summands).failure_bound(values)
    assert bound == pytest.approx(math.log2(2 * coefficients * math.exp(-exponent)))


@pytest.mark.parametrize(("summands", "bits"), [(4, 24), (16, 23), (64, 21), (256, 18), (1000, 16)])
def test_value_bits_known_for_some_federations(summands: int, bits: int) -> None:
    assert Packing(summands).value_bits == bits


@pytest.mark.parametrize("summands", [0, MAX_SUMMANDS + 1])
def test_more_summands_than_the_parameters_admit(summands: int) -> None:
    with raises_with_hint(CapacityError, f"^{summands} sites in one sum", "let regions aggregate first"):
        Packing(summands)


def test_two_encryptions_of_one_message_share_nothing() -> None:
    packing = Packing(3)
    message = np.zeros(VALUES, dtype=np.uint64)
    first = encrypt(message, packing, randomness.fresh_seed())
    second = encrypt(message, packing, randomness.fresh_seed())
    difference = (first - second).astype(np.float64) / 2.0**64
    assert not (first == second).any()
    # uniform: mean 1/2 with deviation 1/sqrt(12 n), no small differences that would tell equal messages
    assert abs(difference.mean() - 0.5) < 6 / np.sqrt(12 * difference.size)
    assert (np.minimum(difference, 1 - difference) < 2**-30).mean() < 1e-3


def test_even_the_same_secret_gives_another_ciphertext() -> None:
    message = np.zeros(100, dtype=np.uint64)
    assert not np.array_equal(encrypt(message, Packing(3), bytes(32)), encrypt(message, Packing(3), bytes(32)))


@pytest.mark.parametrize("count", [5, VALUES - 1, VALUES - CHECK_VALUES // 2])
def test_a_wrong_secret_is_noticed_before_anything_is_given_out(count: int) -> None:
    packing = Packing(3)
    message = np.arange(count, dtype=np.uint64)
    seed = randomness.fresh_seed()
    ciphertext = encrypt(message, packing, seed)
    wrong = randomness.secret_polynomial(seed).copy()
    wrong[7] += 1
    for secret in (wrong, randomness.secret_polynomial(randomness.fresh_seed()), np.zeros(DEGREE, dtype=np.int64)):
        with raises_with_hint(SignatureError, "fails its check", "not the sum of the uploads"):
            next(scheme.decrypt(ciphertext, count, 3, packing, PUBLIC, secret))


@pytest.mark.parametrize("count", [5, VALUES - CHECK_VALUES // 2])
@pytest.mark.parametrize("place", ["first", "last"])
def test_one_changed_zero_is_noticed(count: int, place: str) -> None:
    """Of the zeros in the last polynomial, the first or the last one becomes 1."""
    packing, seed = Packing(3), randomness.fresh_seed()
    ciphertext = encrypt(np.ones(count, dtype=np.uint64), packing, seed)
    slot = max(0, count - (len(ciphertext) - 1) * VALUES) if place == "first" else VALUES - 1
    bit = packing.noise_bits + (packing.slot_bits if slot >= DEGREE else 0)
    ciphertext[-1, slot % DEGREE] += np.uint64(1 << bit)
    with pytest.raises(SignatureError, match="check"):
        next(scheme.decrypt(ciphertext, count, 3, packing, PUBLIC, randomness.secret_polynomial(seed)))


def test_a_secret_larger_than_secrets_are_is_refused() -> None:
    packing = Packing(3)
    ciphertext = encrypt(np.zeros(5, dtype=np.uint64), packing, bytes(32))
    largest = np.full(DEGREE, 96, dtype=np.int64)
    for secret in (largest + 1, -largest - 1):
        with raises_with_hint(SignatureError, "fails its check", "a seal or a share"):
            next(scheme.decrypt(ciphertext, 5, 3, packing, PUBLIC, secret))
    with pytest.raises(SignatureError, match="check"):  # it could be a sum of three secrets, but is not this one's
        next(scheme.decrypt(ciphertext, 5, 3, packing, PUBLIC, largest))


def test_more_values_than_announced_are_refused() -> None:
    values = [np.zeros(2 * VALUES, dtype=np.uint64)]
    with pytest.raises(ValueError, match="announced"):
        list(scheme.encrypt(values, 10, Packing(3), PUBLIC, bytes(32)))
