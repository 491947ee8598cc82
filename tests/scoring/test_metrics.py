"""Metrics against scikit-learn, scipy, definitions by brute force, and simulations."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hints import raises_with_hint
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from ucadi.errors import FormatError, MismatchError
from ucadi.labels import LABELS
from ucadi.scoring.metrics import auc, clopper_pearson, delong_test, evaluate, macro_auc, wilson


def brute_force(labels: NDArray[np.int_], scores: list[NDArray[np.float64]]) -> tuple[list[float], NDArray[np.float64]]:
    """AUCs and covariance matrix by DeLong's own formulas, over all m n pairs."""
    v10, v01 = [], []
    for s in scores:
        x, y = s[labels == 1], s[labels == 0]
        psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    m, n = len(v10[0]), len(v01[0])
    aucs = [float(v.mean()) for v in v10]
    k = len(scores)
    s10, s01 = np.zeros((k, k)), np.zeros((k, k))
    for r in range(k):
        for c in range(k):
            s10[r, c] = sum((v10[r] - aucs[r]) * (v10[c] - aucs[c])) / (m - 1)
            s01[r, c] = sum((v01[r] - aucs[r]) * (v01[c] - aucs[c])) / (n - 1)
    return aucs, s10 / m + s01 / n


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]]:
    """Labels with two of each kind or more, and two scores with many ties."""
    count = draw(st.integers(4, 40))
    rest = draw(st.lists(st.integers(0, 1), min_size=count - 4, max_size=count - 4))
    labels = np.array([0, 0, 1, 1, *rest])
    score = st.lists(st.integers(0, 8).map(lambda i: i / 8), min_size=count, max_size=count)
    return labels, np.array(draw(score)), np.array(draw(score))


# The AUC and its interval


@given(cases())
def test_auc_and_interval_by_brute_force(
    data: tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]],
) -> None:
    labels, scores, _ = data
    area = auc(labels, scores)
    (value,), covariance = brute_force(labels, [scores])
    half = norm.ppf(0.975) * math.sqrt(covariance[0, 0])
    assert area.value == pytest.approx(value, abs=1e-12)
    assert area.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert area.low == pytest.approx(max(0, value - half), abs=1e-9)
    assert area.high == pytest.approx(min(1, value + half), abs=1e-9)


@given(cases())
def test_auc_is_invariant_under_rising_maps(
    data: tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]],
) -> None:
    labels, scores, _ = data
    assert auc(labels, scores) == auc(labels, np.exp(3 * scores) - 7)
    flipped, area = auc(labels, -scores), auc(labels, scores)
    assert flipped.value == pytest.approx(1 - area.value)
    assert flipped.low == pytest.approx(1 - (area.high or 0), abs=1e-9)


def test_auc_worked_by_hand() -> None:
    """Positives 3, 2, 1 and negatives 2, 0: 3 > both, 2 ties one and beats one, 1 beats one: (2 + 1.5 + 1) / 6."""
    area = auc([1, 1, 1, 0, 0], [3, 2, 1, 2, 0])
    assert area.value == pytest.approx(0.75)
    # Placements 1, .75, .5 (variance 1/16) and .5, 1 (variance 1/8): 1/48 + 1/16 = 1/12.
    assert area.low == pytest.approx(0.75 - 1.959964 / math.sqrt(12), abs=1e-6)
    assert area.high == 1.0


def test_interval_against_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [120, 80])
    scores = rng.normal(size=200) + labels
    area = auc(labels, scores)
    values = []
    for _ in range(2000):
        drawn = np.concatenate([rng.integers(0, 120, 120), rng.integers(120, 200, 80)])
        order = np.argsort(scores[drawn])
        ranks = np.empty(200)
        ranks[order] = np.arange(1, 201)
        values.append((ranks[labels[drawn] == 1].sum() - 80 * 81 / 2) / (120 * 80))
    low, high = np.quantile(values, [0.025, 0.975])
    assert area.low == pytest.approx(low, abs=0.012)
    assert area.high == pytest.approx(high, abs=0.012)


def test_interval_covers_the_truth() -> None:
    """Two normals a standard deviation apart: the AUC is Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 60)
    truth = norm.cdf(1 / math.sqrt(2))
    areas = [auc(labels, rng.normal(size=120) + labels) for _ in range(400)]
    covered = np.mean([(a.low or 0) <= truth <= (a.high or 0) for a in areas])
    assert 0.92 <= covered <= 0.98


def test_interval_needs_two_of_each_kind() -> None:
    area = auc([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.95])
    assert area.value == pytest.approx(2 / 3)
    assert area.low is area.high is None


def test_perfect_separation_has_no_width() -> None:
    area = auc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert (area.value, area.low, area.high) == (1, 1, 1)


# DeLong's test


@given(cases())
def test_delong_by_brute_force(data: tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]]) -> None:
    labels, a, b = data
    test = delong_test(labels, a, b)
    aucs, covariance = brute_force(labels, [a, b])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert (test.auc_a, test.auc_b) == pytest.approx(aucs)
    assert test.difference == pytest.approx(aucs[0] - aucs[1])
    if variance > 1e-12:
        z = (aucs[0] - aucs[1]) / math.sqrt(variance)
        assert test.z == pytest.approx(z, abs=1e-6)
        assert test.p == pytest.approx(2 * norm.sf(abs(z)), abs=1e-6)
        assert test.high - test.low == pytest.approx(2 * norm.ppf(0.975) * math.sqrt(variance), rel=1e-5)


def test_delong_against_the_published_example() -> None:
    """Markers of 113 patients with a subarachnoid haemorrhage (Turck et al. 2010), the example of the R package pROC
    (Robin et al. 2011), with the figures that its documentation prints."""
    outcome = np.array([kind == "p" for kind in ASAH_OUTCOME])
    s100b, wfns = np.array(ASAH_S100B.split(), float), np.array([int(grade) for grade in ASAH_WFNS])
    assert len(outcome) == len(s100b) == len(wfns) == 113
    area = auc(outcome, s100b)
    assert (area.value, area.low, area.high) == pytest.approx((0.7314, 0.6301, 0.8326), abs=5e-5)
    assert auc(outcome, wfns).value == pytest.approx(0.8236789, abs=5e-8)
    test = delong_test(outcome, wfns, s100b)
    assert (test.z, test.p) == (pytest.approx(2.209, abs=5e-4), pytest.approx(0.02718, abs=5e-6))


ASAH_OUTCOME = (
    "ggggppgpggpgppggpgpppgpgggggggggpggppgppgggggggggppgggpgggpgpggpppgppgppppgggppgpggggggpggggggggggggppppppgggpggg"
)
"""Poor or good."""

ASAH_WFNS = (
    "11113254125255125225211112121134214541425511241125521251222151125214524414121421232421451154221113125225552445111"
)

ASAH_S100B = """
0.13 0.14 0.1 0.04 0.13 0.1 0.47 0.16 0.18 0.1 0.12 0.1 0.44 0.71 0.04 0.08 0.49 0.04 0.07 0.33 0.09 0.09 0.07
0.11 0.07 0.17 0.07 0.11 0.13 0.19 0.05 0.16 0.41 0.14 0.34 0.35 0.48 0.09 0.96 0.25 0.5 0.46 0.16 0.07 0.43
0.45 0.11 0.08 0.09 0.86 0.52 0.08 0.06 0.13 2.07 0.1 0.14 0.15 0.07 0.06 0.77 0.05 0.09 0.3 0.03 0.09 0.04 0.23
0.7 0.09 0.27 0.71 0.08 0.26 0.08 0.16 0.09 0.13 0.1 0.08 0.11 0.33 0.11 0.28 0.07 0.1 0.32 0.22 0.07 0.05 0.24
0.38 0.1 0.15 0.08 0.14 0.1 0.07 0.04 0.19 0.56 0.14 0.58 0.32 0.82 0.74 0.15 0.47 0.17 0.44 0.15 0.5 0.48
"""


def test_delong_is_antisymmetric_and_knows_sameness() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 30)
    a, b = rng.normal(size=(2, 60)) + labels
    ab, ba = delong_test(labels, a, b), delong_test(labels, b, a)
    assert ab.p == pytest.approx(ba.p)
    assert ab.difference == -ba.difference
    same = delong_test(labels, a, 2 * a + 1)
    assert (same.difference, same.z, same.p) == (0, 0, 1)
    opposite = delong_test([0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0])
    assert (opposite.difference, opposite.z, opposite.p) == (1, None, 0)


def test_delong_p_is_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 50)
    p = []
    for _ in range(600):
        common = rng.normal(size=100) + labels
        p.append(delong_test(labels, common + rng.normal(size=100), common + rng.normal(size=100)).p)
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(p) == pytest.approx(0.5, abs=0.04)


# Rates


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_against_scipy(successes: int, total: int) -> None:
    successes = min(successes, total)
    rate = wilson(successes, total)
    expected = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    assert rate.value == successes / total
    assert rate.low == pytest.approx(expected.low, abs=1e-9)
    assert rate.high == pytest.approx(expected.high, abs=1e-9)
    assert rate.low is not None
    assert rate.high is not None
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_exact_intervals_by_their_definition(shares: tuple[int, int]) -> None:
    """At each bound, what was seen or more extreme has a probability of 2.5 %; one bound is 0 or 1 at the ends."""
    successes, total = shares
    rate = clopper_pearson(successes, total)
    assert rate.value == successes / total
    assert (rate.low == 0) if successes == 0 else binom.sf(successes - 1, total, rate.low) == pytest.approx(0.025)
    assert (rate.high == 1) if successes == total else binom.cdf(successes, total, rate.high) == pytest.approx(0.025)


def test_exact_intervals_all_through() -> None:
    report = evaluate([0, 1, 1, 2], np.eye(4)[[0, 1, 0, 2]], intervals="exact")
    assert report.covid.sensitivity == clopper_pearson(1, 2)
    assert report.diagnoses["healthy"].specificity == clopper_pearson(2, 3)
    assert report.accuracy == clopper_pearson(3, 4)
    assert report.covid.f1.high == pytest.approx(2 * (h := clopper_pearson(1, 2).high or 0) / (1 + h))
    assert clopper_pearson(0, 0) == wilson(0, 0)


def test_wilson_of_nothing() -> None:
    rate = wilson(0, 0)
    assert rate.value is rate.low is rate.high is None


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_wilson_covers_the_truth(share: float) -> None:
    rng = np.random.default_rng(4)
    rates = [wilson(int(k), 40) for k in rng.binomial(40, share, 5000)]
    covered = np.mean([(r.low or 0) <= share <= (r.high or 0) for r in rates])
    assert 0.93 <= covered <= 0.985


def test_f1_interval_covers_the_truth() -> None:
    """Sensitivity 0.8, false alarms 0.1 and half the cases positive: F1 = 0.8 / (0.8 + (0.1 + 0.2) / 2)."""
    rng = np.random.default_rng(5)
    truth, covered = 0.8 / 0.95, 0
    for _ in range(400):
        labels = (rng.random(100) < 0.5).astype(int)
        covid = np.where(labels == 1, rng.random(100) < 0.8, rng.random(100) < 0.1)
        p = np.zeros((100, 4))
        p[np.arange(100), covid.astype(int)] = 1
        f1 = evaluate(labels, p).covid.f1
        covered += (f1.low or 0) <= truth <= (f1.high or 0)
    assert 0.925 <= covered / 400 <= 0.98


# The report


def predictions(seed: int, count: int = 200) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    logits = rng.normal(size=(count, 4)) + 1.5 * np.eye(4)[labels]
    p = np.exp(logits)
    return labels, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_report_against_scikit_learn(seed: int) -> None:
    labels, p = predictions(seed)
    report = evaluate(labels, p, threshold=0.4)
    answer = p.argmax(axis=1)
    assert report.cases == 200
    assert np.array_equal(report.confusion, confusion_matrix(labels, answer))
    assert report.accuracy.value == pytest.approx(accuracy_score(labels, answer))
    precision, recall, f1, _ = precision_recall_fscore_support(labels, answer)
    assert list(report.diagnoses) == list(LABELS)
    for k, detection in enumerate(report.diagnoses.values()):
        assert detection.ppv.value == pytest.approx(precision[k])
        assert detection.sensitivity.value == pytest.approx(recall[k])
        assert detection.f1.value == pytest.approx(f1[k])
        assert detection.auc == auc(labels == k, p[:, k])
    assert report.macro_auc == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"))

    truth, positive = labels == 1, p[:, 1] >= 0.4
    (tn, fp), (fn, tp) = confusion_matrix(truth, positive)
    assert report.covid.confusion == ((tn, fp), (fn, tp))
    assert report.covid.sensitivity.value == pytest.approx(tp / (tp + fn))
    assert report.covid.specificity.value == pytest.approx(tn / (tn + fp))
    assert report.covid.npv.value == pytest.approx(tn / (tn + fn))
    assert report.covid.accuracy.value == pytest.approx((tn + tp) / 200)


def test_threshold_is_reached_by_equality() -> None:
    p = [[0.5, 0.5, 0, 0], [0.6, 0.4, 0, 0]]
    assert evaluate([1, 0], p).covid.confusion == ((1, 0), (0, 1))


def test_table_9_of_the_paper() -> None:
    """The federated model on four classes: the accuracy and sensitivities that its confusion matrix implies."""
    matrix = np.array([[76, 1, 3, 0], [1, 78, 1, 0], [0, 4, 5, 11], [14, 5, 12, 29]])
    labels = np.repeat(np.arange(4), matrix.sum(axis=1))
    answers = np.concatenate([np.repeat(np.arange(4), row) for row in matrix])
    report = evaluate(labels, np.eye(4)[answers])
    assert np.array_equal(report.confusion, matrix)
    assert report.accuracy.value == pytest.approx(188 / 240)
    assert report.covid.sensitivity.value == pytest.approx(78 / 80)
    assert report.covid.specificity.value == pytest.approx(150 / 160)  # the two-class row: [150, 10], [2, 78]
    assert report.covid.confusion == ((150, 10), (2, 78))


def test_one_kind_of_case_has_rates_but_no_area() -> None:
    """Paper, Supplementary Table 8: hold-out hospitals with COVID-19 cases only."""
    report = evaluate([1, 1, 1], [[0.1, 0.9, 0, 0], [0.8, 0.2, 0, 0], [0, 1, 0, 0]])
    assert report.covid.sensitivity.value == pytest.approx(2 / 3)
    assert report.covid.specificity.value is None
    assert report.covid.auc is None
    assert report.macro_auc is None
    assert report.diagnoses["bacterial"].f1.value is None


def test_report_is_json() -> None:
    report = evaluate([1, 1, 0], [[0.1, 0.9, 0, 0], [0.8, 0.2, 0, 0], [1, 0, 0, 0]])
    text = json.dumps(dataclasses.asdict(report), allow_nan=False)
    assert json.loads(text)["covid"]["sensitivity"]["value"] == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_of_the_areas_by_ranks_is_the_reports(seed: int) -> None:
    labels, p = predictions(seed, 60)
    p = np.rint(p * 8) / 8  # with ties
    p[:, 0] += 1 - p.sum(axis=1)
    p = np.abs(p) / np.abs(p).sum(axis=1, keepdims=True)
    assert macro_auc(labels, p) == pytest.approx(evaluate(labels, p).macro_auc)
    labels[labels == 3] = 2  # of a diagnosis that nobody has there is no area
    assert macro_auc(labels, p) == pytest.approx(evaluate(labels, p).macro_auc)
    assert macro_auc([1, 1], p[:2]) is None


def test_what_is_not_said_is_a_half_and_wilsons() -> None:
    labels, p = predictions(1)
    assert evaluate(labels, p) == evaluate(labels, p, threshold=0.5, intervals="wilson")
    assert evaluate(labels, p).threshold == 0.5


def test_rates_at_the_ends_touch_them_exactly() -> None:
    for total in range(1, 60):
        none, all_ = wilson(0, total), wilson(total, total)
        assert (none.low, none.value, all_.value, all_.high) == (0, 0, 1, 1)
        assert 0 < (none.high or 0) < 1
        assert 0 < (all_.low or 0) < 1


# Refusals


def test_auc_refusals() -> None:
    both_kinds, again, one_each = "cases of both kinds", "predict again", "one label for every"
    for labels, scores, error, message, hint in (
        ([1, 1], [0.1, 0.2], MismatchError, "all 2 cases are positive", both_kinds),
        ([0, 0], [0.1, 0.2], MismatchError, "all 2 cases are negative", both_kinds),
        (
            [0, 1, 1],
            [0.1, math.nan, math.inf],
            FormatError,
            r"case 1 has a score that is not finite \(and 1 more\)$",
            again,
        ),
        ([0, 1, 1], [0.1, math.nan, 0.2], FormatError, "case 1 has a score that is not finite$", again),
        ([0, 1, 1], [0.1, 0.2], MismatchError, r"^\(3,\) labels for \(2,\) cases", one_each),
        ([0, 1, 2], [0.1, 0.2, 0.3], MismatchError, "case 2 has a label that is neither 0 nor 1$", again),
        ([3, 5, 2], [0.1, 0.2, 0.3], MismatchError, r"case 0 .* \(and 2 more\)$", again),
    ):
        with raises_with_hint(error, message, hint):
            auc(labels, scores)
    with pytest.raises(FormatError, match="no cases"):
        auc([], [])
    with pytest.raises(MismatchError, match=r"scores are \(2, 1\)"):
        auc([0, 1], [[0.1], [0.2]])
    with pytest.raises(MismatchError, match="two positive and two negative"):
        delong_test([0, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    with pytest.raises(MismatchError, match="labels for"):
        delong_test([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3])


def test_report_refusals() -> None:
    labels, p = predictions(0, 5)
    with pytest.raises(MismatchError, match=r"probabilities are \(5, 3\), not \(cases, 4\)"):
        evaluate(labels, p[:, :3])
    with pytest.raises(MismatchError, match=r"probabilities are \(4,\)"):
        evaluate(labels[:1], p[0])
    with raises_with_hint(MismatchError, "labels for", "one label for every"):
        evaluate(labels[:4], p)
    with pytest.raises(FormatError, match="no cases"):
        evaluate([], np.zeros((0, 4)))
    with raises_with_hint(MismatchError, "case 0 has a label that is no diagnosis$", "predict again"):
        evaluate([4, *labels[1:]], p)
    for wrong in (2 * p, p * math.nan, p - [0.6, -0.6, 0, 0]):
        with raises_with_hint(
            FormatError, "case 0 has probabilities that are negative, not finite or do not sum to 1", "predict again"
        ):
            evaluate(labels, wrong)


@pytest.mark.parametrize("wrong", [[math.nan, 0, 0, 1], [-0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]])
def test_the_case_at_fault_is_named_alone(wrong: list[float]) -> None:
    labels, p = predictions(0, 5)
    p[3] = wrong
    with pytest.raises(FormatError, match=r"^case 3 has probabilities .* sum to 1$"):
        evaluate(labels, p)


def test_one_case_of_a_kind_makes_an_area() -> None:
    report = evaluate([1, 0, 2], np.eye(4)[[1, 0, 0]])
    assert report.covid.auc is not None
    assert report.covid.auc.value == 1
    assert report.diagnoses["bacterial"].auc is None
    assert all(isinstance(count, int) for row in report.confusion for count in row)


def test_probabilities_sum_to_one_within_a_thousandth() -> None:
    for total in (0.9991, 1.0009):
        assert evaluate([0, 1], total * np.eye(4)[[0, 1]]).cases == 2
    for total in (0.9989, 1.0011):
        with pytest.raises(FormatError, match="case 1 has probabilities"):
            evaluate([0, 1], np.diag([1, total, 1, 1])[[0, 1]])
