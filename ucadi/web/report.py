"""The report on one CT: a page in one file, without a script, a time or a name, to keep or to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ucadi.labels import LABELS
from ucadi.pages.html import WARNING, page, picture, table
from ucadi.scoring.metrics import Rate
from ucadi.scoring.study import spread

NAMES: Mapping[str, str] = {
    "healthy": "Healthy lungs",
    "covid": "COVID-19",
    "other_viral": "Other viral pneumonia",
    "bacterial": "Bacterial pneumonia",
}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #16202a; max-width: 820px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 1.8em }
.notice { border: 2px solid #9a5b00; padding: .5em .8em; font-weight: 600 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25em 1.2em .25em 0; border-bottom: 1px solid #d5dbe1; vertical-align: top }
td.number, th.number { text-align: right }
img { max-width: 100%; background: #000 }
.muted { color: #52606d } .wide { overflow-x: auto } code { overflow-wrap: anywhere }
@media print { @page { size: A4; margin: 14mm } body { margin: 0; font-size: 11px } tr, img { break-inside: avoid } }
"""


def report_page(result: Mapping[str, Any], montage: bytes) -> str:
    """The report of `result`, what `diagnosis.diagnose` writes as JSON, with the heatmap's montage (PNG)."""
    name, probability = NAMES[result["explained"]], result["probabilities"][result["explained"]]
    return page(
        "Report on a chest CT",
        _STYLE,
        [
            WARNING,
            "<h2>Probabilities</h2>",
            _probabilities(result),
            *(f"<p>{escape(line)}</p>" for line in sentences(result)),
            f"<h2>Where the network saw: {escape(name)}, probability {probability:.3f}</h2>",
            picture(f"Slices of the CT under the heatmap of {name}", montage),
            '<p class="muted">The heatmap is Grad-CAM, relative to its own maximum: it shows where the evidence for '
            "this diagnosis lies, not how ill the lung is.</p>",
            _regions(result["regions"]),
            "<h2>Quality of the CT</h2>",
            table(("item", "value"), facts(result["quality"])),
            "<h2>Made by</h2>",
            table(("item", "value"), [("ucadi", result["version"]), ("model, SHA-256", result["model"]["sha256"])]),
        ],
    )


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What is known of how far the probabilities can be trusted, in words."""
    point = result["operating_point"]
    means = f"Means of {result['samplings']} samplings of 16 slices; in brackets the lowest and the highest of them."
    if point is None:
        return [means, "Not calibrated, and without an operating point: no evaluation of this model was given."]
    called = "reaches" if result["called"] else "does not reach"
    tested = f"{point['cases']} test cases ({point['dataset']})"
    lines = [
        means,
        f"COVID-19 {called} the operating point: a probability, before calibration, of {point['threshold']:.3f} "
        f"({point['chosen']}). On {tested} that had sensitivity {_spread(point['sensitivity'])}, specificity "
        f"{_spread(point['specificity'])}, AUC {_spread(point['auc'])}.",
    ]
    if point["temperature"] is None:
        lines.append("Not calibrated: the evaluation of this model had no validation cases.")
    else:
        lines.append(f"Calibrated at temperature {point['temperature']:.3g}, fitted on validation cases.")
    if point["ece"] is not None:
        lines.append(
            f"Expected calibration error {point['ece']:.3f}, Brier score {point['brier']:.3f}, on the same test cases."
        )
    return lines


def facts(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the quality report says of the series that was used, as rows of text."""
    spacing = " x ".join(f"{side:g}" for side in quality["spacing_mm"])
    rows = [("slices", str(quality["slices"])), ("spacing of the network's picture, mm", spacing)]
    rows += [(name, str(quality[name])) for name in ("interpolated", "unreadable") if quality[name]]
    rows.append(("flags", ", ".join(quality["flags"]) or "none"))
    for name, value in quality["tags"].items():
        rows.append((name, f"{value:g}" if isinstance(value, float) else str(value)))
    for series in quality["not_used"]:
        rows.append((f"series {series['series']}, {series['slices']} slices", f"not used: {series['reason']}"))
    return rows


def _spread(figure: Mapping[str, float | None]) -> str:
    return spread(Rate(figure["value"], figure["low"], figure["high"]))


def _probabilities(result: Mapping[str, Any]) -> str:
    rows = []
    for label in sorted(LABELS, key=lambda label: -result["probabilities"][label]):
        between = f"[{result['lowest'][label]:.3f}, {result['highest'][label]:.3f}]"
        calibrated = [f"{result['calibrated'][label]:.3f}"] if result["calibrated"] else []
        rows.append((NAMES[label], f"{result['probabilities'][label]:.3f} {between}", *calibrated))
    return table(("diagnosis", "probability", *(["calibrated"] if result["calibrated"] else [])), rows)


def _regions(regions: Sequence[Mapping[str, Any]]) -> str:
    if not regions:
        return "<p>No region stands out.</p>"
    header = ("side", "slice", "volume, ml", "peak", "place, mm (left, posterior, superior)")
    rows = [
        (
            *(region["side"], str(region["slice"]), f"{region['volume_ml']:.1f}", f"{region['peak']:.2f}"),
            ", ".join(f"{place:.0f}" for place in region["position_mm"]),
        )
        for region in regions
    ]
    return table(header, rows)
