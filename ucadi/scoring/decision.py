"""The decision curve: what a model is worth to one who treats from a given probability (Vickers and Elkin 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ucadi.scoring.metrics import checked

THRESHOLDS = tuple(i / 100 for i in range(1, 100))


@dataclass(frozen=True)
class Benefit:
    """Net benefit, in true positives a case, of the model and of calling all positive; of none it is 0."""

    threshold: float
    model: float
    all: float


def decision_curve(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Benefit, ...]:
    """Net benefit at 1 to 99 %: a false positive costs odds(threshold) of a true one. Raises as `metrics.auc`."""
    truth, p = checked(labels, probabilities)
    share = float(truth.mean())
    curve = []
    for threshold in THRESHOLDS:
        positive, odds = p >= threshold, threshold / (1 - threshold)
        model = np.mean(positive & truth) - odds * np.mean(positive & ~truth)
        curve.append(Benefit(threshold, float(model), share - odds * (1 - share)))
    return tuple(curve)
