"""ucadi evaluate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ucadi._version import __version__
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.files import refuse_existing
from ucadi.formats import casetable
from ucadi.formats import predictions as predictions_format
from ucadi.formats.predictions import UNLABELLED, Predictions
from ucadi.labels import LABELS
from ucadi.parts import Feature, require

if TYPE_CHECKING:
    from ucadi.scoring.comparison import Comparison
    from ucadi.scoring.metrics import Area, Rate, Report
    from ucadi.scoring.study import Cases, Details

POOLED = "pooled"

TECHNICAL_GROUPS = {
    "Manufacturer": "vendor",
    "ContrastBolusAgent": "contrast agent",
    "contrast_estimate": "contrast by its HU",
}
"""Subgroups by the tags of a dataset."""

THIN_MM = 2.0
"""Thickest slices that are called thin."""


@dataclass(frozen=True)
class EvaluateResult:
    """A report by model and dataset, and one over all datasets of a model where it has several."""

    reports: dict[str, dict[str, Report]]
    details: dict[str, dict[str, Details]] = field(default_factory=dict)
    """By model and dataset, where more than the reports was asked for."""
    comparisons: dict[str, tuple[Comparison, ...]] = field(default_factory=dict)
    """By dataset, every pair of models."""
    report: Path | None = None
    """The folder of the report, if one was asked for."""

    def __str__(self) -> str:
        lines = [self._reports()]
        for model, datasets in self.details.items():
            for name, held in datasets.items():
                lines += ["", f"{model}, {name}", *held.lines()]
        for name, pairs in self.comparisons.items():
            lines += ["", f"models compared on {name}: difference in AUC, p of DeLong's and McNemar's tests by Holm"]
            for c in pairs:
                spread = f"{c.auc.difference:+.3f} [{c.auc.low:+.3f}, {c.auc.high:+.3f}]"
                lines.append(f"  {c.a} - {c.b}  {spread}  {c.auc_p_holm:.3g}  {c.decisions_p_holm:.3g}")
        lines += ["", f"{self.report}: report.html, report.csv, report.json"] if self.report else []
        return "\n".join(lines)

    def _reports(self) -> str:
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
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which a case is called COVID-19 [default: 0.5].", min=0, max=1),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(help="Predictions of validation cases: for --operating-point, calibration."),
    ] = None,
    operating_point: Annotated[
        str | None, typer.Option(help="Choose the threshold on validation: youden, or sensitivity=0.95.")
    ] = None,
    unit: Annotated[str, typer.Option(help="case, or patient: the mean of a patient's CTs.")] = "case",
    compare: Annotated[bool, typer.Option("--compare", help="Test every pair of models on the same cases.")] = False,
    intervals: Annotated[
        str, typer.Option(help="Confidence intervals for rates: wilson, or exact (Clopper-Pearson).")
    ] = "wilson",
    readers: Annotated[
        Path | None,
        typer.Option(help="CSV of radiologists' decisions: case (or patient),reader,decision (1: COVID-19)."),
    ] = None,
    subgroups: Annotated[
        Path | None, typer.Option(help="CSV of groups to report on: case (or patient),group; of age, for instance.")
    ] = None,
    dataset: Annotated[
        list[Path] | None, typer.Option(help="A predicted dataset, for subgroups by vendor, contrast and slices.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder to write: a page, JSON and CSV.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False,
) -> EvaluateResult:
    """Say how good predictions are: sensitivity, specificity, AUC, confusion matrices, with 95 % intervals.

    Of one file, all figures. Of several, a table: models, told apart by the folders of their files, against
    datasets, named by the files, and all datasets of a model pooled. The further options add bootstrap intervals
    that draw patients, calibration, tests between models, readers and subgroups.

    Example:
        ucadi evaluate test.predictions --report report
    """
    require(Feature.STATISTICS, where={Feature.PLOTS: report, Feature.DATASETS: dataset})
    from ucadi.scoring import comparison, metrics, study

    if unit not in ("case", "patient"):
        raise UsageError(f"--unit {unit}", hint="--unit case, or --unit patient")
    if intervals not in metrics.INTERVALS:
        raise UsageError(f"--intervals {intervals}", hint="--intervals wilson, or --intervals exact")
    if operating_point is not None and (threshold is not None or not validation):
        raise UsageError(
            "an operating point is chosen on validation cases", hint="--validation FILE, and no --threshold"
        )
    if report is not None:
        refuse_existing(report, force=force)
    by_model: dict[str, dict[str, Predictions]] = defaultdict(dict)
    for path in predictions:
        by_model[path.absolute().parent.name or "model"][path.stem] = _labelled(path)
    pooled: dict[str, dict[str, Cases]] = {}
    thresholds: dict[str, float] = {}
    tuning: dict[str, Cases | None] = {}
    for model, datasets in by_model.items():
        if len({held.model for held in datasets.values()}) > 1:
            raise MismatchError(
                f"{model}: its files are predictions of several models", hint="keep each model's in a folder of its own"
            )
        _check_disjoint(model, list(datasets.values()))
        groups = {name: [held] for name, held in datasets.items()}
        if len(datasets) > 1:
            groups[POOLED] = list(datasets.values())
        pooled[model] = {name: _cases(group, unit) for name, group in groups.items()}
        tuning[model] = _validation(model, list(datasets.values()), validation or [], unit)
        thresholds[model] = study.threshold(tuning[model], operating_point, 0.5 if threshold is None else threshold)
    reports = {
        model: {
            name: metrics.evaluate(c.labels, c.probabilities, thresholds[model], intervals)
            for name, c in groups.items()
        }
        for model, groups in pooled.items()
    }
    if not (validation or compare or readers or subgroups or dataset or report or unit == "patient"):
        return EvaluateResult(reports)

    decisions = casetable.read_readers(readers, unit) if readers else {}
    members = casetable.read_groups(subgroups, unit) if subgroups else {}
    members |= _technical_groups(dataset or [], unit)
    study.check_known(pooled.values(), decisions.values(), "readers' decisions")
    study.check_known(pooled.values(), members.values(), "subgroups")
    details = {
        model: {
            name: study.details(c, thresholds[model], tuning[model], decisions, members, intervals)
            for name, c in groups.items()
        }
        for model, groups in pooled.items()
    }
    comparisons = {}
    if compare:
        for name in next(iter(pooled.values())):
            labels, scores = study.aligned({model: groups.get(name) for model, groups in pooled.items()}, name)
            comparisons[name] = comparison.compare(labels, scores, thresholds)
    result = EvaluateResult(reports, details, comparisons)
    if report is not None:
        from ucadi.pages import evaluation as evaluation_report
        from ucadi.scoring import report as report_sections

        provenance = {
            "version": __version__,
            "unit": unit,
            "intervals": intervals,
            "operating_point": operating_point or "given",
            "models": {model: next(iter(held.values())).model for model, held in by_model.items()},
            "datasets": {name: d.dataset for held in by_model.values() for name, d in held.items()},
        }
        sections = report_sections.sections(pooled, reports, details, comparisons, provenance)
        held = {name: value for name, value in asdict(result).items() if name != "report"}
        evaluation_report.write(report, sections, {"provenance": provenance, **held}, force=force)
        result = replace(result, report=report)
    return result


def _cases(group: Sequence[Predictions], unit: str) -> Cases:
    from ucadi.scoring import study

    cases = study.Cases(
        tuple(case for held in group for case in held.cases),
        tuple(patient for held in group for patient in held.patients),
        np.concatenate([held.labels for held in group]),
        np.concatenate([held.mean for held in group]),
    )
    return study.per_patient(cases) if unit == "patient" else cases


def _technical_groups(datasets: Sequence[Path], unit: str) -> dict[str, set[str]]:
    """Cases, or patients with a CT of that kind, by what the scanners' headers and the volumes say."""
    from ucadi.formats import dataset as dataset_format

    groups: dict[str, set[str]] = defaultdict(set)
    for path in datasets:
        with dataset_format.open(path) as data:
            for index, one in enumerate(data.ids if unit == "case" else data.patients):
                tags = data.tags(index)
                for tag, name in TECHNICAL_GROUPS.items():
                    groups[f"{name}: {tags.get(tag, 'not given')}"].add(one)
                thickness = tags.get("SliceThickness")
                if isinstance(thickness, float):
                    groups[f"slices: {'up to' if thickness <= THIN_MM else 'over'} {THIN_MM:g} mm"].add(one)
    return dict(sorted(groups.items()))


def _validation(model: str, tested: Sequence[Predictions], paths: Sequence[Path], unit: str) -> Cases | None:
    """The validation cases that this model predicted; no patient of theirs may be tested on."""
    held = [one for one in map(_labelled, paths) if one.model == tested[0].model]
    if not held:
        if paths:
            raise MismatchError(f"{model}: no validation predictions of this model", hint="predict with it, too")
        return None
    _check_disjoint(f"validation of {model}", held)
    if {p for one in held for p in one.patients} & {p for one in tested for p in one.patients}:
        raise MismatchError(f"{model}: patients are in validation and test", hint="choose on other patients: split")
    return _cases(held, unit)


def _labelled(path: Path) -> Predictions:
    held = predictions_format.read(path)
    missing = int((held.labels == UNLABELLED).sum())
    if missing:
        raise FormatError(f"{path}: {missing} cases have no label", hint="only labelled cases can be evaluated")
    if len(set(held.cases)) != len(held.cases):
        raise MismatchError(f"{path}: a case stands twice in it", hint="predict each case once")
    return held


def _check_disjoint(model: str, group: Sequence[Predictions]) -> None:
    cases = [case for held in group for case in held.cases]
    if len(set(cases)) != len(cases):
        raise MismatchError(f"{model}: a case is in two of its datasets", hint="pool each case once")


def table(models: dict[str, dict[str, Report]]) -> list[str]:
    """Lines of a table: a row for each model and dataset."""
    width = max(len("model"), *map(len, models))
    columns = list(dict.fromkeys(name for reports in models.values() for name in reports))
    second = max(len("dataset"), *map(len, columns))
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
