"""Statistics beyond the single report, against scikit-learn, statsmodels, brute force and simulations."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.scoring import histogram
from ucadi.scoring.bootstrap import FALSE_POSITIVE_RATES, bootstrap
from ucadi.scoring.calibration import calibration, fit_temperature, tempered
from ucadi.scoring.comparison import compare, holm, mcnemar
from ucadi.scoring.decision import decision_curve
from ucadi.scoring.metrics import auc
from ucadi.scoring.operating import choose

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that it brings
    from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
    from statsmodels.stats.multitest import multipletests


def drawn(seed: int, count: int = 200) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Labels, and scores in [0, 1] that tell them apart somewhat."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 2)
    return labels, 1 / (1 + np.exp(-rng.normal(size=count) - labels))


# The bootstrap


def test_bootstrap_of_single_cases_agrees_with_delong() -> None:
    labels, scores = drawn(0, 400)
    boot, delong = bootstrap(labels, scores, np.arange(400)).auc, auc(labels, scores)
    assert boot.value == pytest.approx(roc_auc_score(labels, scores))
    assert boot.low == pytest.approx(delong.low, abs=0.012)
    assert boot.high == pytest.approx(delong.high, abs=0.012)


def test_bootstrap_draws_patients() -> None:
    """Four copies of each CT are no new evidence: the interval is that of the patients, as the same draws give."""
    labels, scores = drawn(1, 80)
    scores = scores.round(1)  # ties
    patients = np.arange(80)
    one = bootstrap(labels, scores, patients, replicates=300)
    four = bootstrap(np.tile(labels, 4), np.tile(scores, 4), np.tile(patients, 4), replicates=300)
    assert np.array(four.band) == pytest.approx(np.array(one.band))
    a, b = one.auc, four.auc
    assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high))


def test_bootstrap_is_invariant_under_rising_maps_and_seeded() -> None:
    labels, scores = drawn(2)
    patients = np.arange(200) // 3
    one = bootstrap(labels, scores, patients, replicates=100)
    assert one == bootstrap(labels, np.exp(3 * scores) - 7, patients, replicates=100)
    assert one != bootstrap(labels, scores, patients, replicates=100, seed=1)


def test_clustered_bootstrap_covers_the_truth() -> None:
    """Three CTs of each patient, who has half the variance: an AUC of Phi(1 / sqrt 2)."""
    rng = np.random.default_rng(3)
    labels, patients = np.repeat([0, 1], 120), np.repeat(np.arange(80), 3)
    truth, covered = norm.cdf(1 / math.sqrt(2)), 0
    for _ in range(200):
        scores = labels + np.repeat(rng.normal(size=80), 3) * math.sqrt(0.5) + rng.normal(size=240) * math.sqrt(0.5)
        area = bootstrap(labels, scores, patients, replicates=200).auc
        covered += (area.low or 0) <= truth <= (area.high or 0)
    assert 0.89 <= covered / 200 <= 0.99


def test_the_band_covers_the_true_sensitivity() -> None:
    """Scores of unit normals one apart: at a false positive rate of 0.2 the sensitivity is 1 - Phi(z - 1)."""
    rng = np.random.default_rng(5)
    at = int(np.argmin(np.abs(FALSE_POSITIVE_RATES - 0.2)))
    labels, truth, covered = np.repeat([0, 1], 100), norm.sf(norm.isf(0.2) - 1), 0
    for _ in range(200):
        low, high = bootstrap(labels, labels + rng.normal(size=200), np.arange(200), replicates=200).band[at]
        covered += low <= truth <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_band_lies_about_the_curve() -> None:
    labels, scores = drawn(6)
    low, high = np.array(bootstrap(labels, scores, np.arange(200), replicates=300).band).T
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    assert (high[-1], low[-1]) == (1, 1)
    curve = np.interp(FALSE_POSITIVE_RATES, false, true)
    assert (curve >= low - 0.02).all()
    assert (curve <= high + 0.02).all()


def test_bootstrap_refuses() -> None:
    labels, scores = drawn(4, 10)
    with pytest.raises(MismatchError, match="patients"):
        bootstrap(labels, scores, np.arange(9))
    with pytest.raises(MismatchError, match="positive"):
        bootstrap(np.ones(10), scores, np.arange(10))
    with pytest.raises(FormatError, match="not finite"):
        bootstrap(labels, np.where(labels, np.nan, scores), np.arange(10))
    with pytest.raises(UsageError):
        bootstrap(labels, scores, np.arange(10), replicates=0)
    only = bootstrap(labels, scores, labels)
    assert only.auc.low is None
    assert only.band == ()


# Comparisons


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_against_statsmodels(pairs: list[tuple[bool, bool]]) -> None:
    right = np.array(pairs)
    table = [[int(((right[:, 0] == a) & (right[:, 1] == b)).sum()) for b in (True, False)] for a in (True, False)]
    test = mcnemar(right[:, 0], right[:, 1])
    assert (test.only_a, test.only_b) == (table[0][1], table[1][0])
    assert test.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_all_pairs_are_compared() -> None:
    labels, good = drawn(5, 300)
    rng = np.random.default_rng(5)
    scores = {"good": good, "noise": rng.random(300), "same": good**2}
    found = {(c.a, c.b): c for c in compare(labels, scores, {"good": 0.5, "noise": 0.5, "same": 0.25})}
    assert list(found) == [("good", "noise"), ("good", "same"), ("noise", "same")]
    assert found["good", "same"].auc.p == found["good", "same"].decisions.p == 1
    better = found["good", "noise"]
    assert better.auc.p < better.auc_p_holm < 0.01
    with pytest.raises(MismatchError, match="nothing to be compared"):
        compare(labels, {"good": good}, {"good": 0.5})


# The operating point


@pytest.mark.parametrize("seed", range(5))
def test_operating_points_by_trying_all(seed: int) -> None:
    labels, scores = drawn(seed, 60)
    scores = scores.round(1)

    def rates(threshold: float) -> tuple[float, float]:
        return float((scores >= threshold)[labels == 1].mean()), float((scores < threshold)[labels == 0].mean())

    best = max(sum(rates(t)) for t in scores)
    assert sum(rates(choose(labels, scores, "youden"))) == pytest.approx(best)
    reaching = [t for t in scores if rates(t)[0] >= 0.9]
    assert choose(labels, scores, "sensitivity=0.9") == max(reaching)


@pytest.mark.parametrize("point", ["", "best", "sensitivity", "sensitivity=2", "sensitivity=nan", "specificity=0.9"])
def test_no_such_operating_point(point: str) -> None:
    with pytest.raises(UsageError, match="operating point"):
        choose(*drawn(0), point)


# Calibration and decisions


@pytest.mark.parametrize("seed", range(3))
def test_calibration_against_scikit_learn(seed: int) -> None:
    labels, p = drawn(seed)
    found = calibration(labels, p)
    assert found.brier == pytest.approx(brier_score_loss(labels, p))
    observed, predicted = calibration_curve(labels, p, n_bins=10)
    assert [b.observed for b in found.bins] == pytest.approx(observed)
    assert [b.predicted for b in found.bins] == pytest.approx(predicted)
    assert sum(b.cases for b in found.bins) == 200
    assert found.ece == pytest.approx(sum(b.cases / 200 * abs(b.observed - b.predicted) for b in found.bins))
    with pytest.raises(FormatError, match="outside"):
        calibration(labels, p + 1)


@pytest.mark.parametrize("truth", [0.5, 1, 3])
def test_the_temperature_that_was_is_found(truth: float) -> None:
    rng = np.random.default_rng(6)
    p = rng.dirichlet([1, 1, 1, 1], 20_000)
    labels = (rng.random((20_000, 1)) > p.cumsum(axis=1)[:, :3]).sum(axis=1)
    sure = tempered(p, 1 / truth)
    assert fit_temperature(labels, sure) == pytest.approx(truth, rel=0.05)
    np.testing.assert_allclose(tempered(sure, truth), p, atol=1e-9)


def test_decision_curve_worked_by_hand() -> None:
    """Of 4 cases, from 50 %, 2 are called rightly and 1 wrongly: 2 / 4 - 1 x 1 / 4; from 80 % 1 and none."""
    curve = {b.threshold: b for b in decision_curve([1, 1, 0, 0], [0.9, 0.6, 0.7, 0.1])}
    assert curve[0.5].model == pytest.approx(0.25)
    assert curve[0.8].model == pytest.approx(0.25)
    assert curve[0.5].all == pytest.approx(0)
    assert curve[0.2].all == pytest.approx(0.5 - 0.25 * 0.5)


# Histograms


@given(st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 15)), max_size=20), min_size=1, max_size=4))
def test_histograms_of_sites_add_to_the_pooled_truth(sites: list[list[tuple[int, int]]]) -> None:
    """Scores on the grid of the bins: nothing is rounded, so the ROC and its interval are the pooled ones."""
    arrays = [np.array(site, dtype=int).reshape(-1, 2) for site in sites]
    total = sum((histogram.count(a[:, 0], a[:, 1] / 16, 16) for a in arrays), np.zeros((2, 16), dtype=np.int64))
    pooled = np.concatenate(arrays)
    labels, scores = pooled[:, 0], pooled[:, 1] / 16
    if len(set(labels.tolist())) < 2:
        with pytest.raises(MismatchError, match="one kind"):
            histogram.auc(total)
        return
    found, truth = histogram.auc(total).area, auc(labels, scores)
    assert found.value == pytest.approx(truth.value)
    assert (found.low is None) == (truth.low is None)
    assert (found.low or 0, found.high or 0) == pytest.approx((truth.low or 0, truth.high or 0), abs=1e-7)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    points = set(zip(*(r.round(9).tolist() for r in histogram.roc(total)), strict=True))
    assert set(zip(false.round(9).tolist(), true.round(9).tolist(), strict=True)) == points


def test_binned_auc_bounds_the_unbinned_one() -> None:
    labels, scores = drawn(7, 2000)
    found, truth = histogram.auc(histogram.count(labels, scores)), auc(labels, scores)
    assert found.least <= truth.value <= found.most
    assert found.most - found.least < 0.003
    assert found.area.value == pytest.approx(truth.value, abs=0.001)
    with pytest.raises(FormatError, match="no probabilities"):
        histogram.count([0, 1], [0.5, np.nan])
    with pytest.raises(MismatchError):
        histogram.count([0, 1], [0.5])
