"""The ROC of several sites' cases from counts that add: how many cases of either kind have a score in each bin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.scoring.metrics import Z95, Area

BINS = 1024

Counts = NDArray[np.int64]
"""(2, bins): negative and positive cases by score; bin i holds [i / bins, (i + 1) / bins), the last one also 1."""


@dataclass(frozen=True)
class BinnedArea:
    """`area` is the AUC of scores rounded to their bin, exactly, with DeLong's interval; the AUC of the scores
    themselves lies between `least` and `most`, whatever they are within their bins."""

    area: Area
    least: float
    most: float


def count(labels: ArrayLike, scores: ArrayLike, bins: int = BINS) -> Counts:
    """The histogram of `scores` (cases,) in [0, 1] of `labels` (cases,) of 0 and 1, of one kind perhaps."""
    truth, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.shape != s.shape or s.ndim != 1:
        raise MismatchError(f"{truth.shape} labels for scores {s.shape}", hint="give each case its label")
    if not ((s >= 0) & (s <= 1)).all():
        raise FormatError("scores that are no probabilities", hint="a histogram takes scores from 0 to 1")
    if not np.isin(truth, (0, 1)).all():
        raise MismatchError("labels other than 0 and 1")
    which = np.minimum((s * bins).astype(np.int64), bins - 1)
    return np.stack([np.bincount(which[truth == kind], minlength=bins) for kind in (0, 1)]).astype(np.int64)


def roc(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates from (0, 0) to (1, 1), a point at each edge of the bins."""
    _check(counts)
    reached = np.cumsum(counts[:, ::-1], axis=1) / counts.sum(axis=1, keepdims=True)
    false, true = np.concatenate([np.zeros((2, 1)), reached], axis=1)
    return false, true


def auc(counts: Counts) -> BinnedArea:
    """The AUC of all cases counted. MismatchError if they are all of one kind."""
    _check(counts)
    negative, positive = counts.astype(np.float64)
    m, n = positive.sum(), negative.sum()
    below, above = np.cumsum(negative) - negative, m - np.cumsum(positive)
    least, tied = float(positive @ below / (m * n)), float(positive @ negative / (m * n))
    value = least + tied / 2
    if min(m, n) < 2:
        return BinnedArea(Area(value, None, None), least, least + tied)
    # placements of the positives and negatives in each bin, as in DeLong's variance
    spread_p = positive @ ((below + negative / 2) / n - value) ** 2 / (m - 1) / m
    spread_n = negative @ ((above + positive / 2) / m - value) ** 2 / (n - 1) / n
    half = Z95 * math.sqrt(spread_p + spread_n)
    return BinnedArea(Area(value, max(0.0, value - half), min(1.0, value + half)), least, least + tied)


def _check(counts: Counts) -> None:
    if not counts.sum(axis=1).all():
        raise MismatchError("all cases are of one kind", hint="add the histogram of a site that has the other")
