"""Which of several models is better on the same cases: DeLong's and McNemar's tests, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from ucadi.errors import MismatchError
from ucadi.scoring.metrics import DelongTest, checked, delong_test


@dataclass(frozen=True)
class McNemar:
    """Decisions of a and b on the same cases: how many only one has right, and the exact two-sided p."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases. The `_holm` values are corrected over all pairs of models."""

    a: str
    b: str
    auc: DelongTest
    auc_p_holm: float
    decisions: McNemar
    decisions_p_holm: float


def compare(
    labels: ArrayLike, scores: Mapping[str, ArrayLike], thresholds: Mapping[str, float]
) -> tuple[Comparison, ...]:
    """Every pair of models, by name, on the same cases; a case is positive where its score reaches the threshold.

    Raises what `delong_test` raises, and MismatchError for fewer than two models.
    """
    if len(scores) < 2:
        raise MismatchError("one model has nothing to be compared with", hint="give predictions of two or more")
    pairs = list(combinations(scores, 2))
    areas = [delong_test(labels, scores[a], scores[b]) for a, b in pairs]
    right = {}
    for name, of in scores.items():
        truth, s = checked(labels, of)
        right[name] = (s >= thresholds[name]) == truth
    decisions = [mcnemar(right[a], right[b]) for a, b in pairs]
    area_p, decision_p = holm([test.p for test in areas]), holm([test.p for test in decisions])
    return tuple(
        Comparison(a, b, area, area_holm, decision, decision_holm)
        for (a, b), area, area_holm, decision, decision_holm in zip(
            pairs, areas, area_p, decisions, decision_p, strict=True
        )
    )


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """McNemar's exact test on whether a and b, bool (cases,), were right."""
    from scipy.stats import binomtest

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape:
        raise MismatchError(f"{a.shape} decisions against {b.shape}", hint="compare models on the same cases")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    differing = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, differing).pvalue) if differing else 1.0)


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """p-values corrected for their number by Holm (1979): the family-wise error is kept."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return tuple(corrected.tolist())
