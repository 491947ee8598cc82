"""How good predictions are: rates with Wilson or exact intervals, AUCs with DeLong intervals, and DeLong's paired test.

Everything is a pure function of labels and scores. What cannot be said from the cases at hand (a
sensitivity without patients) is None rather than NaN, which JSON does not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.labels import Diagnosis

Z95 = NormalDist().inv_cdf(0.975)
"""Half the width of a 95 % interval, in standard deviations."""


@dataclass(frozen=True)
class Rate:
    """A share of cases with its 95 % interval; None where there are no cases to take a share of."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve with DeLong's 95 % interval, which takes two cases of either kind to give."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Detection:
    """How well one kind of case is told from the rest. `confusion` is ((TN, FP), (FN, TP)): truth by rows."""

    confusion: tuple[tuple[int, int], tuple[int, int]]
    sensitivity: Rate
    specificity: Rate
    ppv: Rate
    npv: Rate
    accuracy: Rate
    f1: Rate
    auc: Area | None
    """None if all the cases, or none of them, are of this kind."""


@dataclass(frozen=True)
class Report:
    """An evaluation, two-class and four-class (paper, Fig. 4, Supplementary Fig. 3 and Table 9)."""

    cases: int
    threshold: float
    covid: Detection
    """COVID-19 against all the rest, positive where its probability reaches `threshold`."""
    confusion: tuple[tuple[int, ...], ...]
    """Four classes, truth by rows, in the order of the diagnoses; the answer is the most probable one."""
    accuracy: Rate
    diagnoses: dict[str, Detection]
    """By label: each diagnosis against the other three, positive where it is the most probable one."""
    macro_auc: float | None
    """The mean of the diagnoses' AUCs, of those that have one."""


def evaluate(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5, intervals: str = "wilson") -> Report:
    """The report on diagnoses `labels` (cases,) and predicted `probabilities` (cases, 4), with rates by `INTERVALS`.

    Raises FormatError for no cases or numbers that are no probabilities, MismatchError for shapes or
    labels that do not fit.
    """
    truth, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != len(Diagnosis):
        raise MismatchError(f"probabilities are {p.shape}, not (cases, {len(Diagnosis)})")
    _check_lengths(truth, p)
    _check_cases(~np.isin(truth, list(Diagnosis)), MismatchError, "has a label that is no diagnosis")
    bad = ~np.isfinite(p).all(axis=1) | (p < 0).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > 1e-3)
    _check_cases(bad, FormatError, "has probabilities that are negative, not finite or do not sum to 1")

    rate = INTERVALS[intervals]
    answer = p.argmax(axis=1)
    confusion = np.zeros((len(Diagnosis), len(Diagnosis)), dtype=int)
    np.add.at(confusion, (truth.astype(int), answer), 1)
    diagnoses = {d.label: _detection(truth == d, answer == d, p[:, d], rate) for d in Diagnosis}
    areas = [detection.auc.value for detection in diagnoses.values() if detection.auc]
    covid = p[:, Diagnosis.COVID]
    return Report(
        cases=len(truth),
        threshold=threshold,
        covid=_detection(truth == Diagnosis.COVID, covid >= threshold, covid, rate),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        accuracy=rate(int(np.trace(confusion)), len(truth)),
        diagnoses=diagnoses,
        macro_auc=float(np.mean(areas)) if areas else None,
    )


def _detection(
    truth: NDArray[np.bool_], positive: NDArray[np.bool_], scores: NDArray[np.float64], rate: Interval
) -> Detection:
    tp, fn = int((truth & positive).sum()), int((truth & ~positive).sum())
    fp, tn = int((~truth & positive).sum()), int((~truth & ~positive).sum())
    return Detection(
        confusion=((tn, fp), (fn, tp)),
        sensitivity=rate(tp, tp + fn),
        specificity=rate(tn, tn + fp),
        ppv=rate(tp, tp + fp),
        npv=rate(tn, tn + fn),
        accuracy=rate(tp + tn, len(truth)),
        f1=_f1(rate(tp, tp + fp + fn)),
        auc=auc(truth, scores) if 0 < truth.sum() < len(truth) else None,
    )


def wilson(successes: int, total: int) -> Rate:
    """`successes` of `total` with the 95 % interval of Wilson (1927), which stays sound near 0 and 1."""
    if total == 0:
        return Rate(None, None, None)
    share, z2 = successes / total, Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # At the ends the interval touches 0 or 1 exactly; rounding must not take it past the share or off the scale.
    return Rate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def clopper_pearson(successes: int, total: int) -> Rate:
    """`successes` of `total` with the exact 95 % interval of Clopper and Pearson (1934): never below its level,
    and wider for it."""
    from scipy.stats import binomtest

    if total == 0:
        return Rate(None, None, None)
    exact = binomtest(successes, total).proportion_ci(0.95, method="exact")
    return Rate(successes / total, float(exact.low), float(exact.high))


Interval = Callable[[int, int], Rate]
"""Of successes among a total."""

INTERVALS: dict[str, Interval] = {"wilson": wilson, "exact": clopper_pearson}


def _f1(j: Rate) -> Rate:
    """F1 is no share of cases, but 2j / (1 + j) of one: j = TP / (TP + FP + FN), whose interval it inherits
    (Hand, Christen and Kirielle 2021)."""
    return Rate(*(None if bound is None else 2 * bound / (1 + bound) for bound in (j.value, j.low, j.high)))


def auc(labels: ArrayLike, scores: ArrayLike) -> Area:
    """The AUC of `scores` (cases,) for `labels` (cases,) of 0 and 1, with DeLong's 95 % interval.

    The interval is the plain one, cut at 0 and 1; where every positive outscores every negative it has no
    width, which says more about few cases than about certainty.
    Raises FormatError for no cases or scores with NaN, MismatchError for lengths that differ or cases of
    one kind only.
    """
    from sklearn.metrics import roc_auc_score  # a second to import

    truth, s = checked(labels, scores)
    value = float(roc_auc_score(truth, s))
    variance = _covariance([_placements(truth, s)])
    if variance is None:
        return Area(value, None, None)
    half = Z95 * math.sqrt(max(variance[0, 0], 0.0))
    return Area(value, max(0.0, value - half), min(1.0, value + half))


def macro_auc(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """The mean of the diagnoses' AUCs, each against the rest, of those that have both kinds of cases; None if none has.

    By ranks alone, which takes a thousandth of the time of a whole report.
    """
    truth, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    areas = []
    for diagnosis in range(p.shape[1]):
        positive = truth == diagnosis
        if positive.any() and not positive.all():
            above, count = _midranks(p[:, diagnosis])[positive].sum(), int(positive.sum())
            areas.append((above - count * (count + 1) / 2) / (count * (len(truth) - count)))
    return float(np.mean(areas)) if areas else None


@dataclass(frozen=True)
class DelongTest:
    """Two AUCs on the same cases: their difference a - b with its 95 % interval, and the two-sided p.

    `z` is None where the difference has no variance, as between all right and all wrong.
    """

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    z: float | None
    p: float


def delong_test(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> DelongTest:
    """Do two scores of the same cases differ in AUC? DeLong, DeLong and Clarke-Pearson (1988).

    Scores that rank the cases alike give z = 0 and p = 1. Raises what `auc` raises, and MismatchError where
    there are fewer than two cases of either kind.
    """
    truth, a = checked(labels, scores_a)
    _, b = checked(labels, scores_b)
    placements = [_placements(truth, a), _placements(truth, b)]
    covariance = _covariance(placements)
    if covariance is None:
        raise MismatchError("DeLong's test needs two positive and two negative cases or more")
    auc_a, auc_b = (float(positive.mean()) for positive, _ in placements)
    difference = auc_a - auc_b
    deviation = math.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0))
    half = Z95 * deviation
    z: float | None = difference / deviation if deviation > 1e-12 else None
    if z is None and abs(difference) < 1e-12:
        z = 0.0
    p = 0.0 if z is None else math.erfc(abs(z) / math.sqrt(2))
    return DelongTest(auc_a, auc_b, difference, difference - half, difference + half, z, p)


Placements = tuple[NDArray[np.float64], NDArray[np.float64]]


def _placements(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> Placements:
    """For each positive the share of negatives below it, for each negative that of positives above it; ties half.

    By midranks in O(n log n): Sun and Xu 2014, equation 5 and 6.
    """
    positive, negative = scores[truth], scores[~truth]
    ranks = _midranks(scores)
    above = (ranks[truth] - _midranks(positive)) / len(negative)
    below = 1 - (ranks[~truth] - _midranks(negative)) / len(positive)
    return above, below


def _midranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return ranks


def _covariance(placements: Sequence[Placements]) -> NDArray[np.float64] | None:
    """The covariance matrix of the AUCs, or None without two cases of either kind."""
    above = np.stack([positive for positive, _ in placements])  # (scores, positives)
    below = np.stack([negative for _, negative in placements])  # (scores, negatives)
    if min(above.shape[1], below.shape[1]) < 2:
        return None
    covariance: NDArray[np.float64] = np.atleast_2d(np.cov(above) / above.shape[1] + np.cov(below) / below.shape[1])
    return covariance


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels (cases,) of 0 and 1 as bool and scores (cases,) as float64, or the errors that `auc` names."""
    truth, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if s.ndim != 1:
        raise MismatchError(f"scores are {s.shape}, not (cases,)")
    _check_lengths(truth, s)
    _check_cases(~np.isin(truth, (0, 1)), MismatchError, "has a label that is neither 0 nor 1")
    _check_cases(~np.isfinite(s), FormatError, "has a score that is not finite")
    if truth.all() or not truth.any():
        kind = "positive" if truth.all() else "negative"
        raise MismatchError(f"all {len(truth)} cases are {kind}", hint="a ROC curve takes cases of both kinds")
    return truth.astype(bool), s


def _check_lengths(labels: NDArray[np.generic], scores: NDArray[np.float64]) -> None:
    if labels.shape != scores.shape[:1]:
        raise MismatchError(
            f"{labels.shape} labels for {scores.shape[:1]} cases", hint="give one label for every predicted case"
        )
    if len(labels) == 0:
        raise FormatError("no cases to evaluate")


def _check_cases(bad: NDArray[np.bool_], error: type[FormatError | MismatchError], what: str) -> None:
    if bad.any():
        others = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
        raise error(f"case {int(bad.argmax())} {what}{others}", hint="predict again, with labels of the same cases")
