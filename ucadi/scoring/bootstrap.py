"""Bootstrap intervals of the AUC that draw patients, not CTs, and keep the mix of diagnoses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import MismatchError, UsageError
from ucadi.scoring.metrics import Area, checked

REPLICATES = 2000


def auc_bootstrap(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0
) -> Area:
    """The AUC of `scores` (cases,) for `labels` (cases,) of 0 and 1 with its percentile 95 % interval.

    A replicate draws `patients` (cases,) with replacement, each with all its CTs, separately among those with
    positive CTs only, negative ones only, and both: so each has both kinds. The interval is None where only one
    patient is of a kind, which cannot vary. Raises what `ucadi.scoring.metrics.auc` raises.
    """
    truth, s = checked(labels, scores)
    names = np.asarray(patients)
    if names.shape != truth.shape:
        raise MismatchError(f"{names.shape} patients for {truth.shape} cases", hint="give each case its patient")
    if replicates < 1:
        raise UsageError(f"{replicates} bootstrap replicates", hint="take 1,000 or more")
    order = np.argsort(s, kind="stable")
    truth, s = truth[order], s[order]
    _, patient = np.unique(names[order], return_inverse=True)
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])  # of equal scores

    count = int(patient.max()) + 1
    positives = np.bincount(patient, weights=truth, minlength=count) > 0
    negatives = np.bincount(patient, weights=~truth, minlength=count) > 0
    strata = [np.flatnonzero(kind) for kind in (positives & ~negatives, negatives & ~positives, positives & negatives)]
    value = _weighted_auc(np.ones(len(s)), truth, starts)
    if positives.sum() < 2 or negatives.sum() < 2:
        return Area(value, None, None)

    rng = np.random.default_rng(seed)
    values = np.empty(replicates)
    for replicate in range(replicates):
        times = np.zeros(count)
        for members in strata:
            drawn = rng.integers(0, len(members), len(members)) if len(members) else members
            times[members] = np.bincount(drawn, minlength=len(members))
        values[replicate] = _weighted_auc(times[patient], truth, starts)
    low, high = np.quantile(values, [0.025, 0.975])
    return Area(value, float(low), float(high))


def _weighted_auc(weights: NDArray[np.float64], truth: NDArray[np.bool_], starts: NDArray[np.intp]) -> float:
    """The AUC of cases in the order of their scores, each counted `weights` times; one pass, nothing sorted."""
    positive = weights * truth
    negative = weights - positive
    if len(starts) < len(weights):
        positive, negative = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    below = np.cumsum(negative)
    return float(positive @ (below - negative / 2) / (positive.sum() * below[-1]))
