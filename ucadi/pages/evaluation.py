"""The report of evaluate: a folder with one self-contained page, and the same figures as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ucadi.files import new_folder
from ucadi.pages.html import WARNING, page, picture, table
from ucadi.scoring.report import Section, Table

HTML, CSV, JSON = "report.html", "report.csv", "report.json"

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto; padding: 0 1em }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 11px; font-variant-numeric: tabular-nums }
th, td { padding: .3em .6em; border-bottom: 1px solid #ddd; text-align: left; overflow-wrap: break-word }
img { max-width: 360px; width: 32%; vertical-align: top }
img[alt^="confusion"] { width: 24% }
img[alt^="heatmap"] { max-width: 720px; width: 100% }
.notice { color: #a05a00 }
@media print { @page { size: A4 landscape; margin: 12mm } body { margin: 0; max-width: none }
  table { font-size: 7px } tr, img { break-inside: avoid } h2 { margin-top: 1em } h2, p { break-after: avoid }
  section:has(img) { break-before: page } }
"""


def write(folder: Path, sections: Sequence[Section], document: Mapping[str, Any], *, force: bool = False) -> None:
    """Writes the three files, whole or not at all. The CSV is the table of the first section."""
    figures = sections[0].table or Table((), ())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([figures.header, *figures.rows])
    with new_folder(folder, force=force) as part:
        (part / HTML).write_bytes(evaluation_page("Evaluation", sections).encode())
        (part / CSV).write_bytes(text.getvalue().encode())
        (part / JSON).write_bytes((json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def evaluation_page(title: str, sections: Sequence[Section]) -> str:
    """The sections as one self-contained page of HTML."""
    return page(title, STYLE, [WARNING, *map(_section, sections)])


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    if section.table:
        parts.append(table(section.table.header, section.table.rows))
    parts += [picture(shows, png) for shows, png in section.pictures]
    parts += [f'<p><a href="{escape(target)}">{escape(words)}</a></p>' for words, target in section.links]
    return "\n".join([*parts, "</section>"])
