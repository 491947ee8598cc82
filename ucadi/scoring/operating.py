"""The score from which a case is called positive, chosen on validation cases."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ucadi.errors import UsageError
from ucadi.scoring.metrics import checked


def choose(labels: ArrayLike, scores: ArrayLike, point: str) -> float:
    """The threshold by `point`: `youden`, or `sensitivity=0.95` for the highest that reaches it.

    Raises UsageError for another point, and what `ucadi.scoring.metrics.auc` raises.
    """
    if point == "youden":
        return youden(labels, scores)
    name, _, value = point.partition("=")
    try:
        wanted = float(value)
    except ValueError:
        wanted = math.nan
    if name != "sensitivity" or not 0 < wanted <= 1:
        raise UsageError(f"no operating point {point!r}", hint="--operating-point youden, or sensitivity=0.95")
    return at_sensitivity(labels, scores, wanted)


def youden(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold of the highest sensitivity + specificity - 1; of several, the highest threshold."""
    from sklearn.metrics import roc_curve

    truth, s = checked(labels, scores)
    false, true, thresholds = roc_curve(truth, s, drop_intermediate=False)
    # the first point calls nothing positive: its threshold is infinite
    return float(thresholds[1:][np.argmax((true - false)[1:])])


def at_sensitivity(labels: ArrayLike, scores: ArrayLike, sensitivity: float) -> float:
    """The highest threshold at which at least `sensitivity` of the positive cases are called positive."""
    truth, s = checked(labels, scores)
    positive = np.sort(s[truth])[::-1]
    # 0.95 x 20 may come out a hair above 19
    needed = max(1, math.ceil(sensitivity * len(positive) - 1e-9))
    return float(positive[needed - 1])
