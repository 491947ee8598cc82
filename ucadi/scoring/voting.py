"""Whether a new model is worse than the one before it on the same cases, by more than chance: a site's vote."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import MismatchError
from ucadi.labels import Diagnosis
from ucadi.scoring.bootstrap import REPLICATES, RankedCases, draws

LEAST_PATIENTS: Final = 10
"""Patients with a known diagnosis below which a site cannot say."""

_LEAST_OF_A_KIND: Final = 2
"""Patients with COVID-19, and without, that an AUC takes."""

_LEAST_PROBABILITY: Final = 1e-6
"""Probabilities below it count as this much, so that one case cannot decide."""


def is_worse(labels: ArrayLike, before: ArrayLike, after: ArrayLike, patients: ArrayLike) -> bool | None:
    """Whether the model of `after` is worse than that of `before`; None with fewer than `LEAST_PATIENTS` patients.

    `labels` (cases,) are diagnoses, negative where unknown; `before` and `after` the probabilities (cases, classes) of
    the same cases. Worse is a model if the whole 95 % interval of the difference is on the worse side: of the AUC for
    COVID-19, or of the log loss where there are too few patients of either kind. The interval is the percentile
    bootstrap's of patients with all their cases, paired, with a fixed seed. MismatchError for other shapes.
    """
    truth, p, q, names = np.asarray(labels), np.asarray(before, float), np.asarray(after, float), np.asarray(patients)
    if p.shape != q.shape or p.shape != (len(truth), len(Diagnosis)) or names.shape != truth.shape:
        raise MismatchError("two models are compared on the same cases", hint="predict again, with the same dataset")
    known = truth >= 0
    truth, p, q = truth[known], p[known], q[known]
    _, patient = np.unique(names[known], return_inverse=True)
    if len(np.unique(patient)) < LEAST_PATIENTS:
        return None
    covid = truth == Diagnosis.COVID
    kinds = (patient[covid], patient[~covid])
    times = draws(covid, patient, REPLICATES, seed=0)
    if min(len(np.unique(kind)) for kind in kinds) >= _LEAST_OF_A_KIND:
        ranked = [RankedCases(covid, of[:, Diagnosis.COVID]) for of in (p, q)]
        losses = np.array([ranked[0].area(t) - ranked[1].area(t) for t in times])
    else:
        more = _log_loss(truth, q) - _log_loss(truth, p)
        losses = np.array([float(t @ more / t.sum()) for t in times])
    return bool(np.quantile(losses, 0.025) > 0)


def _log_loss(truth: NDArray[np.integer], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minus the logarithm of the probability that each case's own diagnosis got."""
    given = p[np.arange(len(truth)), truth]
    loss: NDArray[np.float64] = -np.log(np.maximum(given, _LEAST_PROBABILITY))
    return loss
