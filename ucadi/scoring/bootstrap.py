"""Bootstrap intervals of the AUC and the ROC curve that draw patients, not CTs, and keep the mix of diagnoses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import MismatchError, UsageError
from ucadi.scoring.metrics import Area, checked

REPLICATES = 2000

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
"""Where the band of a ROC curve is given."""


Band = tuple[tuple[float, float], ...]
"""Bounds of a ROC curve's sensitivity at each of `FALSE_POSITIVE_RATES`."""


@dataclass(frozen=True)
class Bootstrap:
    """The AUC with its percentile 95 % interval, and the pointwise one of the ROC curve.

    Where only one patient is of a kind, which cannot vary, there is no interval, and the band is empty.
    """

    auc: Area
    band: Band


def bootstrap(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0
) -> Bootstrap:
    """The AUC and ROC curve of `scores` (cases,) for `labels` (cases,) of 0 and 1, with pointwise intervals.

    A replicate draws `patients` (cases,) with replacement, each with all its CTs, separately among those with
    positive CTs only, negative ones only, and both: so each has both kinds. Raises what
    `ucadi.scoring.metrics.auc` raises.
    """
    truth, s = checked(labels, scores)
    names = np.asarray(patients)
    if names.shape != truth.shape:
        raise MismatchError(f"{names.shape} patients for {truth.shape} cases", hint="give each case its patient")
    if replicates < 1:
        raise UsageError(f"{replicates} bootstrap replicates", hint="take 1,000 or more")
    _, patient = np.unique(names, return_inverse=True)
    curve = RankedCases(truth, s)
    value = curve.area(np.ones(len(s)))
    if len(np.unique(patient[truth])) < 2 or len(np.unique(patient[~truth])) < 2:
        return Bootstrap(Area(value, None, None), ())

    values, curves = np.empty(replicates), np.empty((replicates, len(FALSE_POSITIVE_RATES)))
    for replicate, times in enumerate(draws(truth, patient, replicates, seed)):
        false, true = curve.roc(times)
        values[replicate] = _area(false, true)
        curves[replicate] = np.interp(FALSE_POSITIVE_RATES, false, true)
    low, high = np.quantile(values, [0.025, 0.975])
    band = np.quantile(curves, [0.025, 0.975], axis=0).T
    return Bootstrap(Area(value, float(low), float(high)), tuple((float(a), float(b)) for a, b in band))


def draws(
    truth: NDArray[np.bool_], patient: NDArray[np.intp], replicates: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """How often each case is drawn, (cases,), in each replicate. `patient` numbers the patients from 0 without gaps."""
    count = int(patient.max()) + 1
    positives = np.bincount(patient, weights=truth, minlength=count) > 0
    negatives = np.bincount(patient, weights=~truth, minlength=count) > 0
    strata = [np.flatnonzero(kind) for kind in (positives & ~negatives, negatives & ~positives, positives & negatives)]
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        times = np.zeros(count)
        for members in strata:
            drawn = rng.integers(0, len(members), len(members)) if len(members) else members
            times[members] = np.bincount(drawn, minlength=len(members))
        yield times[patient]


class RankedCases:
    """Cases from the highest score down, sorted once, for ROC curves in which each counts so many times."""

    def __init__(self, truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._truth = truth[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of equal scores

    def roc(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False and true positive rates, each case counted `times`.

        One pass, nothing sorted; a point after each run of equal scores, and (0, 0) before.
        """
        weights = times[self._order]
        positive = weights * self._truth
        negative = weights - positive
        if len(self._starts) < len(weights):
            positive, negative = np.add.reduceat(positive, self._starts), np.add.reduceat(negative, self._starts)
        true, false = np.cumsum(np.r_[0.0, positive]), np.cumsum(np.r_[0.0, negative])
        return false / false[-1], true / true[-1]

    def area(self, times: NDArray[np.float64]) -> float:
        """The area under that curve."""
        return _area(*self.roc(times))


def _area(false: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    return float(np.trapezoid(true, false))
