"""The evaluation report's sections: tables as in the paper's Fig. 4c, plots, model card, reporting items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ucadi.labels import LABELS
from ucadi.scoring import plots
from ucadi.scoring.comparison import Comparison
from ucadi.scoring.metrics import Report
from ucadi.scoring.study import Cases, Details, spread

UNANSWERED = "for the authors"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, a table and PNG pictures with what they show."""

    title: str
    text: str = ""
    table: Table | None = None
    pictures: tuple[tuple[str, bytes], ...] = ()


def sections(
    cases: Mapping[str, Mapping[str, Cases]],
    reports: Mapping[str, Mapping[str, Report]],
    details: Mapping[str, Mapping[str, Details]],
    comparisons: Mapping[str, Sequence[Comparison]],
    provenance: Mapping[str, Any],
) -> list[Section]:
    """The report on models and datasets, by their names; the first section is the table of all figures."""
    datasets = list(dict.fromkeys(name for held in reports.values() for name in held))
    found = [_figures(reports, details)]
    found += [_dataset(name, cases, reports, details) for name in datasets]
    if comparisons:
        found.append(_comparisons(comparisons))
    for name in datasets:
        found += _readers(name, details)
        found += _subgroups(name, details)
    return [*found, _card(reports, details, provenance), _items(reports, details, provenance)]


def _figures(reports: Mapping[str, Mapping[str, Report]], details: Mapping[str, Mapping[str, Details]]) -> Section:
    header = (
        *("model", "dataset", "cases", "threshold", "AUC (DeLong)", "AUC (bootstrap)", "sensitivity", "specificity"),
        *("PPV", "NPV", "accuracy", "F1", "accuracy, 4 classes", "macro AUC", "Brier", "ECE"),
    )
    rows = []
    for model, held in reports.items():
        for name, r in held.items():
            c, d = r.covid, details[model][name]
            rates = (c.auc, d.bootstrap, c.sensitivity, c.specificity, c.ppv, c.npv, c.accuracy, c.f1, r.accuracy)
            loose = (r.macro_auc, d.calibration and d.calibration.brier, d.calibration and d.calibration.ece)
            last = ("-" if value is None else f"{value:.3f}" for value in loose)
            rows.append((model, name, str(r.cases), f"{r.threshold:.3f}", *map(spread, rates), *last))
    text = (
        "COVID-19 against all others, and four classes. 95 % intervals in brackets: Wilson's for shares, DeLong's and "
        "the bootstrap of patients for the AUC."
    )
    return Section("Figures", text, Table(header, tuple(rows)))


def _dataset(
    name: str,
    cases: Mapping[str, Mapping[str, Cases]],
    reports: Mapping[str, Mapping[str, Report]],
    details: Mapping[str, Mapping[str, Details]],
) -> Section:
    pictures = []
    both = [model for model, held in cases.items() if name in held and reports[model][name].covid.auc]
    if both:
        curves = [(model, cases[model][name].covid, cases[model][name].scores) for model in both]
        points = {
            reader: (reader, r.sensitivity.value, r.specificity.value)
            for model in both
            for reader, r in details[model][name].readers.items()
            if r.sensitivity.value is not None and r.specificity.value is not None
        }
        pictures.append(("ROC curves", plots.roc_png(curves, "COVID-19 against all others", list(points.values()))))
        reliability = [(model, c) for model in both if (c := details[model][name].calibration)]
        reliability += [(f"{model}, tempered", c) for model in both if (c := details[model][name].tempered)]
        pictures.append(("reliability", plots.reliability_png(reliability, "reliability")))
        decision = [(model, details[model][name].decision_curve) for model in both]
        pictures.append(("decision curves", plots.decision_png(decision, "decision curve")))
    for model, held in reports.items():
        if name in held:
            two = plots.confusion_png(held[name].covid.confusion, ("others", "covid"), model)
            four = plots.confusion_png(held[name].confusion, LABELS, model)
            pictures += [(f"confusion of {model}, two classes", two), (f"confusion of {model}, four classes", four)]
    return Section(f"Dataset {name}", pictures=tuple(pictures))


def _comparisons(comparisons: Mapping[str, Sequence[Comparison]]) -> Section:
    header = ("dataset", "models", "difference in AUC", "DeLong p", "Holm", "right alone", "McNemar p", "Holm")
    rows = tuple(
        (
            *(name, f"{c.a} - {c.b}", f"{c.auc.difference:+.3f} [{c.auc.low:+.3f}, {c.auc.high:+.3f}]"),
            *(f"{c.auc.p:.3g}", f"{c.auc_p_holm:.3g}", f"{c.decisions.only_a} : {c.decisions.only_b}"),
            *(f"{c.decisions.p:.3g}", f"{c.decisions_p_holm:.3g}"),
        )
        for name, pairs in comparisons.items()
        for c in pairs
    )
    return Section(
        "Models compared", "On the same cases; Holm's correction is over the pairs of a dataset.", Table(header, rows)
    )


def _readers(name: str, details: Mapping[str, Mapping[str, Details]]) -> list[Section]:
    header = ("model", "reader", "cases", "sensitivity", "specificity", "right alone: model, reader", "McNemar p")
    rows = tuple(
        (
            *(model, reader, str(r.cases), spread(r.sensitivity), spread(r.specificity)),
            *(f"{r.against_model.only_a} : {r.against_model.only_b}", f"{r.against_model.p:.3g}"),
        )
        for model, held in details.items()
        if name in held
        for reader, r in held[name].readers.items()
    )
    return [Section(f"Readers on {name}", table=Table(header, rows))] if rows else []


def _subgroups(name: str, details: Mapping[str, Mapping[str, Details]]) -> list[Section]:
    header = ("model", "subgroup", "cases", "AUC", "sensitivity", "specificity")
    rows = tuple(
        (
            *(model, group, str(r.cases), spread(r.covid.auc)),
            *(spread(r.covid.sensitivity), spread(r.covid.specificity)),
        )
        for model, held in details.items()
        if name in held
        for group, r in held[name].subgroups.items()
    )
    return [Section(f"Subgroups of {name}", table=Table(header, rows))] if rows else []


def _card(
    reports: Mapping[str, Mapping[str, Report]],
    details: Mapping[str, Mapping[str, Details]],
    provenance: Mapping[str, Any],
) -> Section:
    rows = [("ucadi", str(provenance["version"])), ("intended use", "research only, not for clinical use")]
    rows += [(f"model {name}, sha256", digest) for name, digest in provenance["models"].items()]
    rows += [(f"dataset {name}, sha256", digest) for name, digest in provenance["datasets"].items()]
    for model, held in reports.items():
        first = next(iter(held))
        temperature = details[model][first].temperature
        fitted = "" if temperature is None else f"; temperature on validation {temperature:.3g}"
        rows.append((f"threshold of {model}", f"{held[first].threshold:.4g}, {provenance['operating_point']}{fitted}"))
    return Section("Model card", table=Table(("item", "value"), tuple(rows)))


def _items(
    reports: Mapping[str, Mapping[str, Report]],
    details: Mapping[str, Mapping[str, Details]],
    provenance: Mapping[str, Any],
) -> Section:
    counts = {name: r for held in reports.values() for name, r in held.items()}
    sizes = "; ".join(f"{name}: {sum(r.covid.confusion[1])} of {r.cases} with COVID-19" for name, r in counts.items())
    groups = sorted({g for held in details.values() for d in held.values() for g in d.subgroups})
    rows = (
        ("participants and outcomes in the test data", sizes),
        ("unit of analysis", str(provenance["unit"])),
        ("how the decision threshold was chosen", f"{provenance['operating_point']}; not on the test cases"
         if provenance["operating_point"] != "given" else "given beforehand"),
        ("performance with intervals", "Figures"),
        ("calibration, clinical utility", "reliability and decision curves of each dataset"),
        ("subgroups, fairness", ", ".join(groups) or UNANSWERED),
        ("software and model version", "Model card"),
        ("setting, eligibility, reference standard, funding, ethics, limitations", UNANSWERED),
    )  # fmt: skip
    text = "What this evaluation answers of the topics that TRIPOD+AI and CLAIM ask for; the rest is the authors'."
    return Section("Reporting items", text, Table(("topic", "answer"), rows))
