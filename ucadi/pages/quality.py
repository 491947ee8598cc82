"""The quality report of preprocess: a folder with one page to look through, and tables of the same facts.

`report.html` shows a montage of every case, on one page without anything from outside; `report.csv` has a line, and
`report.json` everything, for each. Cases are named by their salted ids and series by their numbers, so that a report
names no patient. Which folder and which series those are stands in the linkage file alone, which only its owner reads.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ucadi.files import new_folder, write_file
from ucadi.pages.html import page, picture, table

HTML, CSV, JSON = "report.html", "report.csv", "report.json"

FACTS = (
    *("extent_mm", "lung_ml", "lung_fraction", "tissue_hu", "contrast_estimate", "ContrastBolusAgent"),
    *("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "SliceThickness", "KVP"),
)
"""The tags that have a column in the table."""


@dataclass(frozen=True)
class NotUsed:
    """A series of a case that was not used: its number in the case, how many slices it has, and why."""

    series: int
    slices: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Record:
    """What is known of a case. `reason` says why it is not used, and is empty if it is.

    slices: measured ones. interpolated, unreadable: how many, None where they were read for an earlier dataset.
    montage: JPEG, empty if the case is not used.
    """

    id: str
    label: str
    reason: str = ""
    detail: str = ""
    series: int = 0
    slices: int = 0
    interpolated: int | None = None
    unreadable: int | None = None
    spacing_mm: tuple[float, ...] = ()
    flags: tuple[str, ...] = ()
    tags: Mapping[str, str | float] | None = None
    not_used: tuple[NotUsed, ...] = ()
    montage: bytes = b""


def write(folder: Path, parameters: Mapping[str, Any], records: Sequence[Record], *, force: bool = False) -> None:
    """Writes the report's three files, whole or not at all."""
    with new_folder(folder, force=force, mode=0o700) as part:
        document = {"parameters": dict(parameters), "cases": [_plain(record) for record in records]}
        (part / JSON).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (part / CSV).write_text(_table(records), encoding="utf-8")
        (part / HTML).write_text(_page(parameters, records), encoding="utf-8")


def write_linkage(path: Path, rows: Iterable[Sequence[object]], *, force: bool = False) -> None:
    """Writes the table that says what ids stand for: id, case, series, uid, used, unreadable files."""
    data = io.StringIO()
    writer = csv.writer(data, lineterminator="\n")
    writer.writerow(("id", "case", "series", "uid", "used", "unreadable"))
    writer.writerows(rows)
    write_file(path, data.getvalue().encode(errors="backslashreplace"), force=force, mode=0o600)


def _plain(record: Record) -> dict[str, Any]:
    """A record for JSON: without the picture, and without what does not apply to it."""
    used: dict[str, Any] = {
        "series": record.series,
        "slices": record.slices,
        "interpolated": record.interpolated,
        "unreadable": record.unreadable,
        "spacing_mm": list(record.spacing_mm),
        "flags": list(record.flags),
        "tags": dict(record.tags or {}),
    }
    refused = {"reason": record.reason, "detail": record.detail}
    return {
        "id": record.id,
        "label": record.label,
        "used": not record.reason,
        **(refused if record.reason else used),
        "not_used": [vars(series) for series in record.not_used],
    }


def _table(records: Sequence[Record]) -> str:
    data = io.StringIO()
    writer = csv.writer(data, lineterminator="\n")
    spacing = ("slice_mm", "row_mm", "column_mm")
    head = ("id", "label", "used", "reason", "series", "slices", "interpolated", "unreadable")
    writer.writerow((*head, *spacing, *FACTS, "flags", "not_used"))
    for record in records:
        tags = record.tags or {}
        writer.writerow(
            (
                *(record.id, record.label, "no" if record.reason else "yes", record.reason),
                *(record.series or "", record.slices or "", record.interpolated, record.unreadable),
                *(record.spacing_mm or ("", "", "")),
                *(tags.get(fact, "") for fact in FACTS),
                " ".join(record.flags),
                " ".join(f"{series.series}:{series.reason}" for series in record.not_used),
            )
        )
    return data.getvalue()


_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1060px; color: #111; }
h1 { font-size: 1.5em; } h2 { font-size: 1em; margin: 0 0 .3em; font-family: ui-monospace, monospace; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .1em 1.2em .1em 0; vertical-align: top; }
article { border-top: 1px solid #bbb; padding: .8em 0; break-inside: avoid; }
img { display: block; width: 100%; image-rendering: auto; background: #000; }
.flag { background: #ffe08a; padding: 0 .4em; margin-right: .4em; border-radius: .2em; white-space: nowrap; }
.refused { background: #f4b6b0; } .muted { color: #555; } p { margin: .3em 0; }
@media print { body { margin: 0; font-size: 10px; } .flag { border: 1px solid #555; } }
"""


def _page(parameters: Mapping[str, Any], records: Sequence[Record]) -> str:
    used = [record for record in records if not record.reason]
    refused = [record for record in records if record.reason]
    flags = Counter(flag for record in used for flag in record.flags)
    reasons = Counter(record.reason for record in refused)
    made = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return page(
        "Quality of preprocessed CTs",
        _STYLE,
        [
            f"<p>{len(used)} of {len(records)} cases used. {escape(made)}.</p>",
            _counts("Flags", flags),
            _counts("Refused", reasons),
            '<p class="muted">Each strip: the middle coronal cut, then axial slices from the head down, seen from the '
            "feet; lung window. Pixels show a person: as confidential as the scans.</p>",
            *map(_refused, refused),
            *map(_case, used),
        ],
    )


def _counts(title: str, counts: Mapping[str, int]) -> str:
    return table((title, ""), ((name, str(count)) for name, count in sorted(counts.items()))) if counts else ""


def _refused(record: Record) -> str:
    why = f'<span class="flag refused">{escape(record.reason)}</span>{escape(record.detail)}'
    return f"<article>{_title(record)}<p>{why}</p>{_not_used(record)}</article>"


def _case(record: Record) -> str:
    flags = "".join(f'<span class="flag">{escape(flag)}</span>' for flag in record.flags)
    spacing = " x ".join(f"{side:g}" for side in record.spacing_mm)
    tags = record.tags or {}
    counted = {"slices": record.slices, "interpolated": record.interpolated, "unreadable": record.unreadable}
    facts: dict[str, object] = {name: count for name, count in counted.items() if count is not None}
    facts |= {name: tags[name] for name in FACTS if name in tags}
    words = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items()]
    words.insert(0, f"spacing {spacing} mm")
    return (
        f"<article>{_title(record)}{picture('montage', record.montage, 'jpeg')}"
        f"<p>{flags}</p><p>{escape(', '.join(words))}</p>{_not_used(record)}</article>"
    )


def _title(record: Record) -> str:
    return f"<h2>{escape(record.id)} {escape(record.label)}</h2>"


def _not_used(record: Record) -> str:
    if not record.not_used:
        return ""
    parts = (f"{s.series} ({s.slices} slices): {s.reason} {s.detail}".rstrip() for s in record.not_used)
    return f'<p class="muted">series not used: {escape("; ".join(parts))}</p>'
