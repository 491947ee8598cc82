"""The evaluation report's sections: tables as in the paper's Fig. 4c, plots, model card, reporting items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ucadi.labels import LABELS, NOTICE
from ucadi.scoring import plots
from ucadi.scoring.calibration import AT_BOUND, is_at_bound
from ucadi.scoring.comparison import Comparison
from ucadi.scoring.metrics import Report
from ucadi.scoring.study import Cases, Details, spread

UNANSWERED = "for the authors"

INTERVAL_NAMES = {"wilson": "Wilson's", "exact": "Clopper and Pearson's"}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, a table, PNG pictures with what they show, and links with their words."""

    title: str
    text: str = ""
    table: Table | None = None
    pictures: tuple[tuple[str, bytes], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def sections(
    cases: Mapping[str, Mapping[str, Cases]],
    reports: Mapping[str, Mapping[str, Report]],
    details: Mapping[str, Mapping[str, Details]],
    comparisons: Mapping[str, Sequence[Comparison]],
    provenance: Mapping[str, Any],
) -> list[Section]:
    """The report on models and datasets, by their names; the first section is the table of all figures."""
    datasets = list(dict.fromkeys(name for held in reports.values() for name in held))
    found = [_figures(reports, details, provenance)]
    found += [_dataset(name, cases, reports, details) for name in datasets]
    if comparisons:
        found.append(_comparisons(comparisons))
    for name in datasets:
        found += _readers(name, details)
        found += _subgroups(name, details)
    return [*found, _card(reports, details, provenance), _items(reports, details, provenance)]


def _figures(
    reports: Mapping[str, Mapping[str, Report]],
    details: Mapping[str, Mapping[str, Details]],
    provenance: Mapping[str, Any],
) -> Section:
    header = (
        *("model", "dataset", "cases", "threshold", "AUC (DeLong)", "AUC (bootstrap)", "sensitivity", "specificity"),
        *("PPV", "NPV", "accuracy", "F1", "accuracy, 4 classes", "macro AUC", "Brier", "ECE"),
    )
    rows = []
    for model, held in reports.items():
        for name, r in held.items():
            c, d = r.covid, details[model][name]
            drawn = d.bootstrap.auc if d.bootstrap else None
            rates = (c.auc, drawn, c.sensitivity, c.specificity, c.ppv, c.npv, c.accuracy, c.f1, r.accuracy)
            loose = (r.macro_auc, d.calibration and d.calibration.brier, d.calibration and d.calibration.ece)
            last = ("-" if value is None else f"{value:.3f}" for value in loose)
            rows.append((model, name, str(r.cases), f"{r.threshold:.3f}", *map(spread, rates), *last))
    text = (
        "COVID-19 against all others, and four classes. 95 % intervals in brackets: "
        f"{INTERVAL_NAMES[provenance['intervals']]} for shares, DeLong's and the bootstrap of patients for the AUC."
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
        bands = {model: b.band for model in both if (b := details[model][name].bootstrap)}
        title = "COVID-19 against all others"
        pictures.append(("ROC curves", plots.roc_png(curves, title, list(points.values()), bands)))
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
    rows = [("ucadi", str(provenance["version"])), ("intended use", NOTICE)]
    rows += [(f"model {name}, sha256", digest) for name, digest in provenance["models"].items()]
    rows += [(f"dataset {name}, sha256", digest) for name, digest in provenance["datasets"].items()]
    for model, held in reports.items():
        first = next(iter(held))
        temperature = details[model][first].temperature
        fitted = "" if temperature is None else f"; temperature on validation {temperature:.3g}"
        if temperature is not None and is_at_bound(temperature):
            fitted += f" (warning: {AT_BOUND})"
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
    chosen = provenance["operating_point"]
    calibrated = any(d.tempered for held in details.values() for d in held.values())
    rows = (
        ("participants: numbers, outcomes", "20b", "33", sizes),
        ("participants: eligibility, setting, dates, treatments", "5, 6", "7, 8", UNANSWERED),
        ("data preparation, missing data", "7, 11", "9, 13", "quality report of preprocess; rejected series there"),
        ("reference standard and who set it", "8", "14 to 18", UNANSWERED),
        ("sample size", "10, 20b", "19", f"{max(r.cases for r in counts.values())} in the largest set; the "
         "intervals show what it suffices for; the reasons are the authors'"),
        ("partitions disjoint, at the level of", "12a", "21", "patients: validation and test share none"
         if calibrated else "patients, where split was used"),
        ("threshold, how chosen", "15", "26", f"{chosen}, on validation cases" if chosen != "given" else "given "
         "beforehand, not looked for on these cases"),
        ("measures of performance", "12e", "28", "discrimination, calibration, clinical utility: Figures, plots"),
        ("uncertainty and significance", "12e, 23a", "29, 36", "95 % intervals; tests between models by Holm"),
        ("unit of analysis", "12a", "36", str(provenance["unit"])),
        ("calibration", "12e, 23a", "36", "reliability of each dataset"
         + ("; temperature on validation cases" if calibrated else "")),
        ("subgroups, fairness, robustness", "14, 23a", "30", ", ".join(groups) or UNANSWERED),
        ("heterogeneity between sites", "23b", "32", ", ".join(n for n in counts if n != "pooled")),
        ("confusion and failures", "23a", "37", "confusion matrices; why cases failed is the authors' to say"),
        ("explanation of decisions", "", "31", "ucadi gradcam"),
        ("model and software, exactly", "22", "22, 23", f"ucadi {provenance['version']}, digests in the Model card"),
        ("training, initial weights", "12c", "24, 25", "the rounds' signed plans; ucadi audit checks them"),
        ("code and data sharing", "18e, 18f", "41", UNANSWERED),
        ("title, abstract, background, objectives", "1 to 4", "1 to 6", UNANSWERED),
        ("ethics, funding, registration, protocol", "17, 18", "40 to 42", UNANSWERED),
        ("demographics", "20b", "34", ", ".join(groups) or UNANSWERED),
        ("interpretation, limitations, use", "25 to 27", "38, 39", UNANSWERED),
    )  # fmt: skip
    text = (
        "What this evaluation answers of the items of TRIPOD+AI (Collins et al. 2024) and of CLAIM (Mongan et al. "
        "2020), by their numbers; the rest is the authors'."
    )
    return Section("Reporting items", text, Table(("item", "TRIPOD+AI", "CLAIM", "answer"), rows))
