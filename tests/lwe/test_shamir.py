"""Shares of secrets: any t give it, t - 1 give nothing, sums of shares are shares of sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.lwe import shamir
from ucadi.lwe.parameters import DEGREE, MAX_SUMMANDS, NOISE_BOUND
from ucadi.lwe.shamir import PRIME


@settings(max_examples=30, deadline=None)
@given(data=st.data(), holders=st.integers(1, 7), secrets=st.integers(1, 5))
def test_any_threshold_of_holders_gives_the_sum(data: st.DataObject, holders: int, secrets: int) -> None:
    threshold = data.draw(st.integers(1, holders))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    parts = rng.integers(-NOISE_BOUND, NOISE_BOUND + 1, (secrets, DEGREE))
    shares = np.stack([shamir.split(part, holders, threshold) for part in parts])
    chosen = data.draw(st.permutations(range(holders)))[: data.draw(st.integers(threshold, holders))]
    sums = {place: shamir.add(shares[:, place]) for place in chosen}
    np.testing.assert_array_equal(shamir.combine(sums, threshold), parts.sum(axis=0))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_fits(sign: int) -> None:
    largest = np.full(DEGREE, sign * NOISE_BOUND * MAX_SUMMANDS)
    shares = shamir.split(largest, 3, 2)
    np.testing.assert_array_equal(shamir.combine({0: shares[0], 2: shares[2]}, 2), largest)


def test_every_number_from_minus_to_plus_half_the_prime_comes_back() -> None:
    extremes = np.concatenate([np.arange(2048) - PRIME // 2, PRIME // 2 - np.arange(2048)])
    shares = shamir.split(extremes, 3, 2)
    assert shares.dtype == shamir.add(shares[np.newaxis, 0]).dtype == np.dtype("<u2")
    found = shamir.combine({0: shares[0], 1: shares[1]}, 2)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, extremes)


@pytest.mark.parametrize(("holders", "threshold"), [(3, 0), (3, 4), (PRIME, 1)])
def test_thresholds_that_share_nothing_are_refused(holders: int, threshold: int) -> None:
    """A holder at the place of the prime would be at 0, and its share the secret."""
    with pytest.raises(ValueError, match=f"no {threshold} of {holders} holders"):
        shamir.split(np.zeros(DEGREE, dtype=np.int64), holders, threshold)


def test_fewer_than_the_threshold_fit_every_secret() -> None:
    """Given t - 1 shares, each other secret has exactly one polynomial through them: they exclude nothing."""
    shares = shamir.split(np.full(DEGREE, 7), 5, 3)
    known = {1: shares[1], 4: shares[4]}
    for guess in (-32, 0, 7, 32):
        # the share of holder 0 that would make `guess` the secret, by Lagrange through (0, guess), (2, .), (5, .)
        points = {0: np.full(DEGREE, guess), 2: known[1].astype(np.int64), 5: known[4].astype(np.int64)}
        forged = np.zeros(DEGREE, dtype=np.int64)
        for x, y in points.items():
            others = [o for o in points if o != x]
            weight = np.prod([(1 - o) * pow(x - o, -1, PRIME) % PRIME for o in others]) % PRIME
            forged = (forged + weight * y) % PRIME
        np.testing.assert_array_equal(shamir.combine({0: forged.astype("<u2"), **known}, 3), guess)


def test_shares_are_uniform_whatever_the_secret() -> None:
    shares = np.stack([shamir.split(np.zeros(DEGREE, dtype=np.int64), 4, 2) for _ in range(50)])
    for holder in range(4):
        values = shares[:, holder].astype(np.float64).ravel() / PRIME
        assert abs(values.mean() - 0.5) < 6 / np.sqrt(12 * values.size)
        assert abs(values.var() - 1 / 12) < 6 / np.sqrt(180 * values.size)


def test_random_coefficients_are_all_numbers_modulo_the_prime_and_no_other() -> None:
    """Of two million draws that any number is missing has a probability of e^-32."""
    drawn = shamir._uniform(512)
    assert (drawn.dtype, drawn.min(), drawn.max()) == (np.int64, 0, PRIME - 1)


def test_too_few_shares() -> None:
    shares = shamir.split(np.zeros(DEGREE, dtype=np.int64), 3, 3)
    with pytest.raises(ValueError, match="2 shares, 3 are needed"):
        shamir.combine({0: shares[0], 1: shares[1]}, 3)
