"""Do probabilities mean what they say? Brier score, expected calibration error, reliability, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.scoring.metrics import checked

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Cases whose probability lies in one part of [0, 1]: how many, their mean probability, the share positive."""

    cases: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Calibration:
    """Of two-class probabilities. ece: the mean distance of predicted and observed over cases, in bins."""

    brier: float
    ece: float
    bins: tuple[Bin, ...]
    """Of equal width, those that have cases."""


def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Calibration:
    """How `probabilities` (cases,) fit `labels` (cases,) of 0 and 1. Raises what `metrics.auc` raises."""
    truth, p = checked(labels, probabilities)
    if p.min() < 0 or p.max() > 1:
        raise FormatError("probabilities lie outside of 0 to 1", hint="calibration takes probabilities, not scores")
    which = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    predicted, observed = (np.bincount(which, weights=of, minlength=bins) for of in (p, truth))
    held = tuple(
        Bin(int(n), float(a / n), float(b / n)) for n, a, b in zip(count, predicted, observed, strict=True) if n
    )
    return Calibration(
        brier=float(np.mean((p - truth) ** 2)), ece=float(np.abs(predicted - observed).sum() / len(p)), bins=held
    )


TEMPERATURES = (0.05, 20.0)
"""What a temperature is sought between."""


AT_BOUND = "the temperature is at the bound of its search: the validation cases do not calibrate this model"


def is_at_bound(temperature: float) -> bool:
    """Whether a fitted temperature is that of a bound, to 1 %: the best one lies beyond, and it calibrates nothing."""
    low, high = TEMPERATURES
    return temperature < 1.01 * low or temperature > high / 1.01


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The temperature that gives validation `labels` (cases,) the highest likelihood under `tempered`
    `probabilities` (cases, classes), within 0.05 to 20 (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    truth, p = np.asarray(labels, dtype=int), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or truth.shape != p.shape[:1] or not len(truth):
        raise MismatchError(f"{truth.shape} labels for probabilities {p.shape}", hint="give each case its label")

    def loss(log_temperature: float) -> float:
        chosen = tempered(p, math.exp(log_temperature))[np.arange(len(p)), truth]
        return float(-np.log(np.maximum(chosen, 1e-300)).mean())

    found = minimize_scalar(loss, bounds=tuple(map(math.log, TEMPERATURES)), method="bounded")
    return math.exp(float(found.x))


def tempered(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Probabilities (cases, classes) whose logits are divided by `temperature`: over 1 makes them less sure."""
    p = np.asarray(probabilities, dtype=np.float64)
    logits = np.log(np.maximum(p, 1e-30)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled
