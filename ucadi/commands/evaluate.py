"""ucadi evaluate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ucadi.errors import FormatError, MismatchError
from ucadi.formats import predictions as predictions_format
from ucadi.formats.predictions import UNLABELLED, Predictions
from ucadi.labels import LABELS

if TYPE_CHECKING:
    from ucadi.scoring.metrics import Area, Rate, Report

POOLED = "pooled"


@dataclass(frozen=True)
class EvaluateResult:
    """A report by model and dataset, and one over all datasets of a model where it has several."""

    reports: dict[str, dict[str, Report]]

    def __str__(self) -> str:
        models, several = self.reports, len(self.reports) > 1
        if not several and len(next(iter(models.values()))) == 1:
            (report,) = next(iter(models.values())).values()
            return full_text(report)
        return "\n".join(table(models))


def evaluate(
    predictions: Annotated[
        list[Path], typer.Argument(help="Predictions of labelled cases: MODEL/DATASET.predictions, or any files.")
    ],
    *,
    threshold: Annotated[float, typer.Option(help="Probability from which a case is called COVID-19.")] = 0.5,
) -> EvaluateResult:
    """Say how good predictions are: sensitivity, specificity, AUC, confusion matrices, with 95 % intervals.

    Of one file, all figures. Of several, a table: models, told apart by the folders of their files, against
    datasets, named by the files, and all datasets of a model pooled.
    """
    from ucadi.scoring import metrics

    by_model: dict[str, dict[str, Predictions]] = defaultdict(dict)
    for path in predictions:
        by_model[path.parent.name][path.stem] = _labelled(path)
    reports: dict[str, dict[str, Report]] = {}
    for model, datasets in by_model.items():
        if len({held.model for held in datasets.values()}) > 1:
            raise MismatchError(
                f"{model}: its files are predictions of several models", hint="keep each model's in a folder of its own"
            )
        groups = {name: [held] for name, held in datasets.items()}
        if len(datasets) > 1:
            groups[POOLED] = list(datasets.values())
            _check_disjoint(model, groups[POOLED])
        reports[model] = {
            name: metrics.evaluate(
                np.concatenate([held.labels for held in group]),
                np.concatenate([held.mean for held in group]),
                threshold,
            )
            for name, group in groups.items()
        }
    return EvaluateResult(reports)


def _labelled(path: Path) -> Predictions:
    held = predictions_format.read(path)
    missing = int((held.labels == UNLABELLED).sum())
    if missing:
        raise FormatError(f"{path}: {missing} cases have no label", hint="only labelled cases can be evaluated")
    return held


def _check_disjoint(model: str, group: Sequence[Predictions]) -> None:
    cases = [case for held in group for case in held.cases]
    if len(set(cases)) != len(cases):
        raise MismatchError(f"{model}: a case is in two of its datasets", hint="pool each case once")


def table(models: dict[str, dict[str, Report]]) -> list[str]:
    """Lines of a table: a row for each model and dataset."""
    width = max(len(model) for model in models)
    columns = list(dict.fromkeys(name for reports in models.values() for name in reports))
    second = max(len(name) for name in columns)
    lines = [
        "COVID-19 against all others, and four classes; 95 % intervals in brackets",
        "",
        f"{'model':<{width}}  {'dataset':<{second}}  cases  {'AUC':<20}  {'sensitivity':<20}  {'specificity':<20}  "
        f"{'accuracy, 4 classes'}",
    ]
    for model, reports in models.items():
        for name, report in reports.items():
            covid = report.covid
            figures = (covid.auc, covid.sensitivity, covid.specificity, report.accuracy)
            row = (f"{model:<{width}}", f"{name:<{second}}", f"{report.cases:>5}", *map(interval, figures))
            lines.append("  ".join(row).rstrip())
    return lines


def full_text(report: Report) -> str:
    """Everything about one set of predictions."""
    covid = report.covid
    (tn, fp), (fn, tp) = covid.confusion
    label_width = max(map(len, LABELS))
    rates = {
        "AUC": covid.auc,
        "sensitivity": covid.sensitivity,
        "specificity": covid.specificity,
        "PPV": covid.ppv,
        "NPV": covid.npv,
        "accuracy": covid.accuracy,
        "F1": covid.f1,
    }
    lines = [
        f"{report.cases} cases; 95 % intervals in brackets",
        "",
        f"COVID-19 against all others, from a probability of {report.threshold:g}",
        *(f"  {name:<{label_width}}  {interval(rate)}" for name, rate in rates.items()),
        f"  {'confusion':<{label_width}}  {tp} right and {fn} missed of {tp + fn} with, "
        f"{tn} right and {fp} called of {fp + tn} without",
        "",
        "four classes, the most probable one",
        f"  {'accuracy':<{label_width}}  {interval(report.accuracy)}",
    ]
    for name, detection in report.diagnoses.items():
        lines.append(f"  {name:<{label_width}}  AUC {interval(detection.auc)}")
    cell = max(len(str(report.cases)), *map(len, LABELS))
    lines += ["", f"  {'truth / answer':<{label_width}}  " + "  ".join(f"{label:>{cell}}" for label in LABELS)]
    for label, row in zip(LABELS, report.confusion, strict=True):
        lines.append(f"  {label:<14}  " + "  ".join(f"{count:>{cell}}" for count in row))
    return "\n".join(lines)


def interval(rate: Rate | Area | None) -> str:
    """A figure with its interval in 20 columns: `0.973 [0.951, 0.988]`."""
    if rate is None or rate.value is None:
        return f"{'-':<20}"
    if rate.low is None or rate.high is None:
        return f"{rate.value:<20.3f}"
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"
