"""Wrong shares: found whoever conspires, up to the code's capacity, and beyond it by what the ciphertext says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.errors import UnsoundError
from ucadi.lwe import correction, randomness, scheme, shamir
from ucadi.lwe.correction import locate, recover
from ucadi.lwe.parameters import DEGREE, NOISE_BOUND, VALUES, Packing
from ucadi.lwe.ring import Secret
from ucadi.lwe.shamir import PRIME, Share


def secret_of(rng: np.random.Generator) -> Secret:
    return rng.integers(-NOISE_BOUND, NOISE_BOUND + 1, DEGREE)


def by_brute_force(word: dict[int, int], threshold: int) -> set[frozenset[int]]:
    """In plain integers: the sets of places that agree on one polynomial and are more than (a + t) / 2 - 1."""

    def at(places: tuple[int, ...], x: int) -> int:
        total = 0
        for p in places:
            weight = 1
            for q in places:
                if q != p:
                    weight = weight * (x - q - 1) * pow(p - q, -1, PRIME) % PRIME
            total += weight * word[p]
        return total % PRIME

    found = set()
    for places in itertools.combinations(sorted(word), threshold):
        agreeing = frozenset(p for p in word if at(places, p + 1) == word[p])
        if len(word) - len(agreeing) <= (len(word) - threshold) // 2:
            found.add(agreeing)
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_wrong_shares_up_to_the_capacity_are_found_and_the_secret_is_that_of_the_others(data: st.DataObject) -> None:
    """Any places, any values, in few or in all coefficients, each liar in others."""
    holders = data.draw(st.integers(1, 9))
    threshold = data.draw(st.integers(1, holders))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    secret = secret_of(rng)
    answering = data.draw(st.permutations(range(holders)))[: data.draw(st.integers(threshold, holders))]
    shares = {
        place: share for place, share in enumerate(shamir.split(secret, holders, threshold)) if place in answering
    }
    liars = set(answering[: data.draw(st.integers(0, (len(answering) - threshold) // 2))])
    for liar in liars:
        where = rng.choice(DEGREE, data.draw(st.sampled_from([1, 2, 100, DEGREE])), replace=False)
        changed = shares[liar].astype(np.int64)
        changed[where] = (changed[where] + rng.integers(1, PRIME, len(where))) % PRIME
        shares[liar] = changed.astype("<u2")
    assert locate(shares, threshold) == tuple(sorted(liars))
    found = recover(shares, threshold, lambda _: True)
    assert found is not None
    assert found.wrong == tuple(sorted(liars))
    np.testing.assert_array_equal(found.secret, secret)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_found_is_what_all_sets_in_plain_integers_say(data: st.DataObject) -> None:
    """One coefficient, as many liars as one likes: found if and only if so few are wrong that it is the only way."""
    holders = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(1, holders))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shares = dict(enumerate(shamir.split(secret_of(rng), holders, threshold)))
    for liar in data.draw(st.sets(st.integers(0, holders - 1))):
        shares[liar] = shares[liar].copy()
        shares[liar][7] = data.draw(st.integers(0, PRIME - 1))
    expected = by_brute_force({place: int(share[7]) for place, share in shares.items()}, threshold)
    found = locate(shares, threshold)
    assert {frozenset(shares) - frozenset(found)} == expected if found is not None else not expected


@pytest.mark.parametrize(("holders", "threshold"), [(7, 3), (9, 4), (40, 27), (200, 134)])
def test_liars_who_agree_on_another_secret_are_outvoted_up_to_the_capacity(holders: int, threshold: int) -> None:
    rng = np.random.default_rng(holders)
    secret, other = secret_of(rng), secret_of(rng)
    shares = dict(enumerate(shamir.split(secret, holders, threshold)))
    forged = shamir.split(other, holders, threshold)
    liars = tuple(range(0, 2 * ((holders - threshold) // 2), 2))
    shares |= {liar: forged[liar] for liar in liars}
    found = recover(shares, threshold, lambda _: True)
    assert found is not None
    assert found.wrong == liars
    np.testing.assert_array_equal(found.secret, secret)


class Upload:
    """A ciphertext of a message that fills its last polynomial but for the zeros, and the test of secrets by it."""

    def __init__(self, *, dirty: int = 0) -> None:
        self.packing, self.seed, secret_seed = Packing(3), bytes(32), bytes([1]) * 32
        self.count, self.secret = VALUES - 64, randomness.secret_polynomial(secret_seed)
        values = np.arange(self.count + dirty, dtype=np.uint64) % 1000 + 1
        (self.last,) = scheme.encrypt([values], self.count, self.packing, self.seed, secret_seed)

    def opens(self, secret: Secret) -> bool:
        return scheme.opens(self.last, 0, self.count, 3, self.packing, self.seed, secret)


def lie(rng: np.random.Generator, share: Share, coefficients: int) -> Share:
    changed = share.astype(np.int64)
    changed[:coefficients] += rng.integers(1, PRIME, coefficients)
    return (changed % PRIME).astype("<u2")


@pytest.mark.parametrize("coefficients", [1, DEGREE])
@pytest.mark.parametrize(("holders", "threshold", "liars"), [(4, 3, 1), (5, 3, 2), (7, 5, 2), (10, 7, 3)])
def test_beyond_the_capacity_the_ciphertext_tells_who_lies(
    coefficients: int, holders: int, threshold: int, liars: int
) -> None:
    """As many as there are shares to spare, each for itself or all for one other secret."""
    upload, rng = Upload(), np.random.default_rng(liars)
    honest = shamir.split(upload.secret, holders, threshold)
    forged = shamir.split(secret_of(rng), holders, threshold)
    places = rng.choice(holders, liars, replace=False)
    for share_of in (lambda place: lie(rng, honest[place], coefficients), lambda place: forged[place]):
        shares = dict(enumerate(honest)) | {int(place): share_of(place) for place in places}
        found = recover(shares, threshold, upload.opens)
        assert found is not None
        assert found.wrong == tuple(sorted(map(int, places)))
        np.testing.assert_array_equal(found.secret, upload.secret)


def test_liars_who_share_the_secret_with_an_honest_holder_frame_nobody() -> None:
    """Two of five are on another polynomial of the same secret, with an honest third: who lies nobody can say."""
    upload = Upload()
    honest = dict(enumerate(shamir.split(upload.secret, 5, 3)))
    lies = {
        0: lie(np.random.default_rng(0), honest[0], DEGREE),
        2: honest[2],
        -1: (upload.secret % PRIME).astype("<u2"),
    }
    lies[1] = shamir.interpolate(lies, [-1, 0, 2], 2).astype("<u2")
    found = recover({**honest, 0: lies[0], 1: lies[1]}, 3, upload.opens)
    assert found is not None
    np.testing.assert_array_equal(found.secret, upload.secret)
    assert found.wrong == ()


def test_with_fewer_honest_shares_than_the_threshold_nothing_is_found() -> None:
    upload, rng = Upload(), np.random.default_rng(5)
    honest = shamir.split(upload.secret, 5, 3)
    shares = {place: lie(rng, share, 1) if place > 1 else share for place, share in enumerate(honest)}
    assert recover(shares, 3, upload.opens) is None
    assert recover({place: honest[place] for place in (0, 1)}, 3, upload.opens) is None
    assert recover({0: honest[0], 1: honest[1], 4: shares[4]}, 3, upload.opens) is None


def test_where_there_are_too_many_sets_to_try_only_what_is_certain_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    upload, rng = Upload(), np.random.default_rng(6)
    honest = shamir.split(upload.secret, 6, 3)
    shares = {place: lie(rng, share, 1) if place > 3 else share for place, share in enumerate(honest)}
    monkeypatch.setattr(correction, "MOST_SETS", 10)
    assert recover(shares, 3, upload.opens) is None
    found = recover(shares | {4: honest[4]}, 3, upload.opens)
    assert found is not None
    assert found.wrong == (5,)


def test_a_share_with_a_number_that_is_none_is_wrong() -> None:
    """65,521 to 65,535 fit 16 bits; taken modulo the prime, one share would have two spellings."""
    secret = np.zeros(DEGREE, dtype=np.int64)
    shares = dict(enumerate(shamir.split(secret, 3, 1)))
    shares[1] = np.full(DEGREE, PRIME, dtype="<u2")
    found = recover(shares, 1, lambda _: True)
    assert found is not None
    assert found.wrong == (1,)
    assert recover({1: shares[1]}, 1, lambda _: True) is None


@pytest.mark.parametrize("dirty", [1, 30, 60])
def test_the_right_secret_of_a_message_that_does_not_end_with_zeros(dirty: int) -> None:
    """It is told from a foreign secret, so that nobody's share is blamed."""
    upload = Upload()
    upload.last = upload.last.copy()
    upload.last[0, DEGREE - dirty :] += np.uint64(1) << np.uint64(upload.packing.noise_bits + upload.packing.slot_bits)
    with pytest.raises(UnsoundError, match="end with zeros") as caught:
        upload.opens(upload.secret)
    assert caught.value.reason == "padding"
    assert not upload.opens(upload.secret + 1)
