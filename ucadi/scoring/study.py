"""What a journal asks beyond one report: clustered intervals, calibration, readers, subgroups, of one model's cases."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucadi.errors import MismatchError
from ucadi.labels import Diagnosis
from ucadi.scoring import operating
from ucadi.scoring.bootstrap import Bootstrap, bootstrap
from ucadi.scoring.calibration import AT_BOUND, Calibration, calibration, fit_temperature, is_at_bound, tempered
from ucadi.scoring.comparison import McNemar, mcnemar
from ucadi.scoring.decision import Benefit, decision_curve
from ucadi.scoring.metrics import INTERVALS, Area, Interval, Rate, Report, evaluate

MAJORITY = "majority"


@dataclass(frozen=True)
class Cases:
    """Cases with their patients, labels (cases,) and probabilities (cases, classes), in one order."""

    ids: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int32]
    probabilities: NDArray[np.float64]

    @property
    def covid(self) -> NDArray[np.bool_]:
        """Which cases have COVID-19."""
        return np.asarray(self.labels == Diagnosis.COVID)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The probability of COVID-19."""
        return self.probabilities[:, Diagnosis.COVID]


@dataclass(frozen=True)
class Reader:
    """A reader, or the majority of them, on the cases read, and the model's decisions on the same ones."""

    cases: int
    sensitivity: Rate
    specificity: Rate
    against_model: McNemar
    """a is the model, b the reader."""


@dataclass(frozen=True)
class Details:
    """Of one model on one dataset. None where there are cases of one kind only, or no validation cases."""

    bootstrap: Bootstrap | None
    calibration: Calibration | None
    temperature: float | None
    """Fitted on the validation cases."""
    tempered: Calibration | None
    decision_curve: tuple[Benefit, ...]
    readers: dict[str, Reader]
    subgroups: dict[str, Report]

    def lines(self) -> list[str]:
        """In words."""
        lines = []
        if self.bootstrap and self.bootstrap.band:
            lines.append(f"  AUC, patients drawn   {spread(self.bootstrap.auc)}")
        if self.calibration:
            lines.append(f"  calibration           Brier {self.calibration.brier:.3f}, ECE {self.calibration.ece:.3f}")
        if self.tempered:
            text = f"Brier {self.tempered.brier:.3f}, ECE {self.tempered.ece:.3f}"
            lines.append(f"  at temperature {self.temperature:<6.3g} {text}")
            if self.temperature is not None and is_at_bound(self.temperature):
                lines.append(f"  warning: {AT_BOUND}")
        for name, reader in self.readers.items():
            text = f"sensitivity {spread(reader.sensitivity)}, specificity {spread(reader.specificity)}"
            lines.append(f"  reader {name}: {text}, McNemar p {reader.against_model.p:.3g}")
        for name, report in self.subgroups.items():
            covid = report.covid
            text = f"AUC {spread(covid.auc)}, sensitivity {spread(covid.sensitivity)}"
            lines.append(f"  {name}: {report.cases} cases, {text}, specificity {spread(covid.specificity)}")
        return lines


def per_patient(cases: Cases) -> Cases:
    """One case for each patient: the mean of its CTs' probabilities. MismatchError if their labels differ."""
    names, first, which = np.unique(np.array(cases.patients), return_index=True, return_inverse=True)
    labels = cases.labels[first]
    if (labels[which] != cases.labels).any():
        patient = names[which[np.argmax(labels[which] != cases.labels)]]
        raise MismatchError(f"patient {patient}: CTs of different diagnoses", hint="evaluate by case")
    sums = np.zeros((len(names), cases.probabilities.shape[1]))
    np.add.at(sums, which, cases.probabilities)
    ids = tuple(names.tolist())
    return Cases(ids, ids, labels, sums / np.bincount(which)[:, None])


def threshold(validation: Cases | None, point: str | None, given: float) -> float:
    """The threshold `given`, or that of the operating `point` on the validation cases."""
    if point is None or validation is None:
        return given
    return operating.choose(validation.covid, validation.scores, point)


def details(
    cases: Cases,
    at: float,
    validation: Cases | None,
    readers: Mapping[str, Mapping[str, bool]],
    groups: Mapping[str, set[str]],
    intervals: str = "wilson",
) -> Details:
    """Everything about a model's `cases` with decisions from the threshold `at`, rates by `metrics.INTERVALS`."""
    both = 0 < cases.covid.sum() < len(cases.ids)
    temperature = fit_temperature(validation.labels, validation.probabilities) if validation else None
    scaled = None
    if both and temperature is not None:
        scaled = calibration(cases.covid, tempered(cases.probabilities, temperature)[:, Diagnosis.COVID])
    return Details(
        bootstrap=bootstrap(cases.covid, cases.scores, cases.patients) if both else None,
        calibration=calibration(cases.covid, cases.scores) if both else None,
        temperature=temperature,
        tempered=scaled,
        decision_curve=decision_curve(cases.covid, cases.scores) if both else (),
        readers=_readers(cases, at, readers, INTERVALS[intervals]),
        subgroups=_subgroups(cases, at, groups, intervals),
    )


def check_known(models: Iterable[Mapping[str, Cases]], named: Iterable[Collection[str]], whose: str) -> None:
    """MismatchError if not a single case that a table of `whose` names is in any model's datasets."""
    mentioned = {case for group in named for case in group}
    if mentioned and not any(mentioned.intersection(c.ids) for held in models for c in held.values()):
        raise MismatchError(f"the {whose} are of none of the cases", hint="name them by the ids in the predictions")


def aligned(
    models: Mapping[str, Cases | None], dataset: str
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.float64]]]:
    """Labels and each model's scores, in one order of cases. MismatchError if their cases or labels differ."""
    labels: dict[str, int] = {}
    scores = {}
    for model, cases in models.items():
        held = dict(zip(cases.ids, cases.labels.tolist(), strict=True)) if cases else {}
        labels = labels or held
        if cases is None or held != labels:
            raise MismatchError(
                f"{dataset}: {model} has other cases or labels than {next(iter(models))}",
                hint="compare models on predictions of the same datasets",
            )
        of = dict(zip(cases.ids, cases.scores.tolist(), strict=True))
        scores[model] = np.array([of[case] for case in labels])
    return np.array([label == Diagnosis.COVID for label in labels.values()]), scores


def _readers(cases: Cases, at: float, readers: Mapping[str, Mapping[str, bool]], rate: Interval) -> dict[str, Reader]:
    place = {case: index for index, case in enumerate(cases.ids)}
    read = {name: {c: d for c, d in decisions.items() if c in place} for name, decisions in readers.items()}
    read = {name: decisions for name, decisions in read.items() if decisions}
    if len(read) > 2:
        shared = [case for case in cases.ids if all(case in decisions for decisions in read.values())]
        votes = {case: 2 * sum(d[case] for d in read.values()) > len(read) for case in shared}
        read |= {MAJORITY: votes} if votes else {}
    found = {}
    for name, decisions in read.items():
        where = np.array([place[case] for case in decisions])
        truth, positive = cases.covid[where], np.array(list(decisions.values()))
        found[name] = Reader(
            len(where),
            rate(int((truth & positive).sum()), int(truth.sum())),
            rate(int((~truth & ~positive).sum()), int((~truth).sum())),
            mcnemar((cases.scores[where] >= at) == truth, positive == truth),
        )
    return found


def _subgroups(cases: Cases, at: float, groups: Mapping[str, set[str]], intervals: str) -> dict[str, Report]:
    found = {}
    for name, members in groups.items():
        chosen = np.array([case in members for case in cases.ids])
        if chosen.any():
            found[name] = evaluate(cases.labels[chosen], cases.probabilities[chosen], at, intervals)
    return found


def spread(figure: Rate | Area | None) -> str:
    """A figure with its interval: `0.973 [0.951, 0.988]`."""
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
