"""Votes: a model that is worse by more than chance is voted down, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucadi.errors import MismatchError
from ucadi.scoring.voting import LEAST_PATIENTS, is_worse


def probabilities(covid: np.ndarray) -> np.ndarray:
    """(cases, 4) with this probability of COVID-19, the rest shared by the other three."""
    p = np.repeat((1 - covid)[:, np.newaxis] / 3, 4, axis=1)
    p[:, 1] = covid
    return p


def cases(rng: np.random.Generator, count: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 0 and 1, and probabilities that tell them apart the better, the more skill."""
    labels = np.arange(count) % 2
    return labels, probabilities(1 / (1 + np.exp(-(skill * (labels - 0.5) + rng.normal(size=count)))))


def test_a_model_that_tells_nothing_apart_is_worse_than_one_that_did() -> None:
    rng = np.random.default_rng(1)
    labels, good = cases(rng, 60, 4.0)
    _, bad = cases(rng, 60, 0.0)
    patients = np.arange(60)
    assert is_worse(labels, good, bad, patients) is True
    assert is_worse(labels, bad, good, patients) is False
    assert is_worse(labels, good, good, patients) is False


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_vote_is_the_same_each_time_and_in_any_order_of_cases(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, before = cases(rng, 24, 2.0)
    _, after = cases(rng, 24, 1.0)
    patients = np.arange(24) // 2
    first = is_worse(labels, before, after, patients)
    assert is_worse(labels, before, after, patients) is first
    order = rng.permutation(24)
    again = is_worse(labels[order], before[order], after[order], patients[order])
    assert again is first


def test_chance_alone_votes_a_model_down_as_seldom_as_its_interval_says() -> None:
    """One side of a 95 % interval: 2.5 % of models that are as good; of 40, no more than 5 but once in thousands."""
    down = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels, before = cases(rng, 60, 1.0)
        _, after = cases(rng, 60, 1.0)
        down += bool(is_worse(labels, before, after, np.arange(60)))
    assert down <= 5


def test_many_scans_of_few_patients_are_no_more_than_few_patients() -> None:
    """The difference is one patient's, whose scans alone would make it certain."""
    labels = np.repeat(np.arange(12) % 2, 20)
    patients = np.repeat(np.arange(12), 20)
    rng = np.random.default_rng(0)
    good = probabilities(np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.05, 240), 0.01, 0.99))
    after = good.copy()
    after[patients == 1] = probabilities(np.full(20, 0.01))
    assert is_worse(labels, good, after, patients) is False
    assert is_worse(labels, good, after, np.arange(240)) is True


def test_with_one_kind_of_case_the_log_loss_decides() -> None:
    labels, patients = np.full(12, 2), np.arange(12)
    even, sure, wrong = (np.tile(row, (12, 1)) for row in ([0.25] * 4, [0.1, 0.1, 0.7, 0.1], [1.0, 0.0, 0.0, 0.0]))
    assert is_worse(labels, sure, even, patients) is True
    assert is_worse(labels, even, sure, patients) is False
    assert is_worse(labels, even, wrong, patients) is True


def test_too_few_patients_or_no_known_labels_do_not_vote() -> None:
    few = LEAST_PATIENTS - 1
    labels, p = cases(np.random.default_rng(2), 4 * few, 1.0)
    assert is_worse(labels, p, p[::-1], np.arange(4 * few) % few) is None
    assert is_worse(np.full(40, -1), p[:1].repeat(40, 0), p[:1].repeat(40, 0), np.arange(40)) is None


def test_other_cases_are_refused() -> None:
    labels, p = cases(np.random.default_rng(2), 20, 1.0)
    for wrong in (p[:-1], p[:, :3]):
        with pytest.raises(MismatchError, match="same cases"):
            is_worse(labels, p, wrong, np.arange(20))
    with pytest.raises(MismatchError, match="same cases"):
        is_worse(labels, p, p, np.arange(19))
