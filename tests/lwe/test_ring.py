"""Products in Z_{2^64}[X] / (X^4096 + 1) against schoolbook arithmetic with Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hints import raises_with_hint
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.errors import CapacityError
from ucadi.lwe import randomness, ring
from ucadi.lwe.parameters import DEGREE, MAX_SUMMANDS, NOISE_BOUND

MODULUS = 1 << 64
DIGIT_BYTES = 16  # room for 4096 products of 64 and 15 bits


def schoolbook(a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """a * s modulo X^N + 1 and 2^64: coefficients side by side in one big integer, multiplied as such."""

    def as_integer(coefficients: np.ndarray) -> int:
        return int.from_bytes(b"".join(int(c).to_bytes(DIGIT_BYTES, "little") for c in coefficients), "little")

    def coefficients(product: int) -> list[int]:
        data = product.to_bytes(2 * DEGREE * DIGIT_BYTES, "little")
        return [int.from_bytes(data[i : i + DIGIT_BYTES], "little") for i in range(0, len(data), DIGIT_BYTES)]

    positive = coefficients(as_integer(a) * as_integer(np.maximum(s, 0)))
    negative = coefficients(as_integer(a) * as_integer(np.maximum(-s, 0)))
    linear = [p - n for p, n in zip(positive, negative, strict=True)]
    return np.array([(linear[i] - linear[i + DEGREE]) % MODULUS for i in range(DEGREE)], dtype=np.uint64)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), magnitude=st.sampled_from([1, 32, 96, 2048, NOISE_BOUND * MAX_SUMMANDS]))
def test_product_is_the_schoolbook_product(seed: int, magnitude: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, MODULUS, (2, DEGREE), dtype=np.uint64)
    s = rng.integers(-magnitude, magnitude + 1, DEGREE)
    product = ring.multiply(a, s)
    for p in range(2):
        np.testing.assert_array_equal(product[p], schoolbook(a[p], s))


def test_limbs_are_centred_and_make_the_number() -> None:
    """Products are exact because no limb is larger than this."""
    a = np.random.default_rng(4).integers(0, MODULUS, (3, DEGREE), dtype=np.uint64)
    total, width = np.zeros_like(a), 0
    for (shift, limb), bits in zip(ring._limbs(a), ring.LIMB_BITS, strict=True):
        assert shift == width
        assert np.abs(limb).max() <= 1 << (bits - 1)
        total += limb.astype(np.int64).view(np.uint64) << np.uint64(shift)
        width += bits
    assert width == 64
    np.testing.assert_array_equal(total, a)


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_factors(sign: int) -> None:
    a = np.full((1, DEGREE), MODULUS - 1, dtype=np.uint64)
    a[0, ::2] = 1 << 63
    s = np.full(DEGREE, sign * NOISE_BOUND * MAX_SUMMANDS)
    np.testing.assert_array_equal(ring.multiply(a, s)[0], schoolbook(a[0], s))


def test_x_to_the_degree_is_minus_one() -> None:
    a = np.zeros((1, DEGREE), dtype=np.uint64)
    a[0, DEGREE - 1] = 5
    x = np.zeros(DEGREE, dtype=np.int64)
    x[1] = 1
    expected = np.zeros(DEGREE, dtype=np.uint64)
    expected[0] = MODULUS - 5
    np.testing.assert_array_equal(ring.multiply(a, x)[0], expected)


def test_a_factor_too_large_to_be_exact_is_refused() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, MODULUS, (1, DEGREE), dtype=np.uint64)
    with raises_with_hint(CapacityError, "larger than any sum of secrets", "a share or a seal is wrong"):
        ring.multiply(a, np.full(DEGREE, NOISE_BOUND * MAX_SUMMANDS + 1))


def test_inexact_arithmetic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor whose complex numbers are off by a billionth."""
    rng = np.random.default_rng(0)
    a, s = rng.integers(0, MODULUS, (1, DEGREE), dtype=np.uint64), rng.integers(-NOISE_BOUND, NOISE_BOUND, DEGREE)
    monkeypatch.setattr(ring, "_TWIST", ring._TWIST * (1 + 1e-9))
    with raises_with_hint(CapacityError, "not exact", "processor"):
        ring.multiply(a, s)


def test_the_product_of_no_polynomials_is_none() -> None:
    assert ring.multiply(np.zeros((0, DEGREE), np.uint64), np.ones(DEGREE, np.int64)).shape == (0, DEGREE)


def test_public_polynomials_are_reached_from_anywhere() -> None:
    seed = bytes(range(32))
    together = randomness.public_polynomials(seed, 0, 5)
    np.testing.assert_array_equal(randomness.public_polynomials(seed, 3, 2), together[3:])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(randomness.public_polynomials(bytes(32), 0, 1)[0], together[0])


@pytest.mark.parametrize("length", [31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"a seed has 32 bytes, not {length}"):
        randomness.secret_polynomial(bytes(length))


@pytest.mark.parametrize("draw", ["secret", "error"])
def test_secrets_and_errors_are_centred_binomial(draw: str) -> None:
    polynomials = (
        np.array([randomness.secret_polynomial(randomness.fresh_seed()) for _ in range(64)])
        if draw == "secret"
        else randomness.error_polynomials(64)
    )
    count = polynomials.size
    assert np.abs(polynomials).max() <= NOISE_BOUND
    # standard deviations of the mean and of the variance, six of them wide
    assert abs(polynomials.mean()) < 6 * 4 / np.sqrt(count)
    assert abs(polynomials.var() - 16) < 6 * 16 * np.sqrt(2 / count)
    assert abs(np.mean(polynomials[:-1] * polynomials[1:])) < 6 * 16 / np.sqrt(count)
