"""What an evaluation says of a model that one new case needs: operating point, calibration, how good it was.

It is read from the `report.json` that `ucadi evaluate --report` writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ucadi.errors import FormatError, MismatchError
from ucadi.files import read_text
from ucadi.scoring.metrics import Rate

MAX_BYTES = 64 << 20

_POOLED = "pooled"


@dataclass(frozen=True)
class OperatingPoint:
    """Of COVID-19 against all others.

    threshold: the probability, before any temperature, from which a case is called. chosen: `youden`,
    `sensitivity=0.95`, or `given`. temperature: None if the evaluation had no validation cases to fit it on. ece and
    brier: of the probabilities at that temperature, or else as they are. dataset, cases: what was tested on.
    """

    threshold: float
    chosen: str
    temperature: float | None
    ece: float | None
    brier: float | None
    dataset: str
    cases: int
    sensitivity: Rate
    specificity: Rate
    auc: Rate


def read(path: Path, model: str) -> OperatingPoint:
    """The operating point of the model with that digest, on all its test sets together.

    Raises FormatError for anything but such a report, MismatchError for one of other models.
    """
    text = read_text(path, "the report.json of ucadi evaluate --report", most=MAX_BYTES)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _foreign(path) from None
    try:
        models = document["provenance"]["models"]
        name = next((name for name, digest in models.items() if digest == model), None)
        if name is None:
            raise MismatchError(
                f"{path.name}: evaluates other models than {model[:8]}…",
                hint="ucadi predict and evaluate with this one",
            )
        reports = document["reports"][name]
        dataset = _POOLED if _POOLED in reports else min(reports)
        return _point(document, name, dataset)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise _foreign(path) from None


def _point(document: Mapping[str, Any], model: str, dataset: str) -> OperatingPoint:
    report, details = document["reports"][model][dataset], document["details"][model][dataset]
    covid = report["covid"]
    temperature = details["temperature"]
    calibration = details["calibration" if temperature is None else "tempered"] or {}
    if temperature is not None and not 0 < _number(temperature) < math.inf:
        raise ValueError
    return OperatingPoint(
        threshold=_number(report["threshold"]),
        chosen=str(document["provenance"]["operating_point"]),
        temperature=None if temperature is None else _number(temperature),
        ece=_maybe(calibration.get("ece")),
        brier=_maybe(calibration.get("brier")),
        dataset=dataset,
        cases=int(report["cases"]),
        sensitivity=_interval(covid["sensitivity"]),
        specificity=_interval(covid["specificity"]),
        auc=_interval(covid["auc"] or {"value": None, "low": None, "high": None}),
    )


def _interval(figure: Mapping[str, Any]) -> Rate:
    return Rate(*(_maybe(figure[part]) for part in ("value", "low", "high")))


def _maybe(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _foreign(path: Path) -> FormatError:
    return FormatError(f"{path.name}: not a report of ucadi evaluate", hint="ucadi evaluate --report FOLDER makes one")
