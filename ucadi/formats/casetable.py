"""CSV tables about a dataset's cases or patients, named by their salted ids: readers' decisions and subgroups."""

from __future__ import annotations

import csv
from pathlib import Path

from ucadi.errors import FormatError
from ucadi.files import read_text


def read_readers(path: Path, unit: str = "case") -> dict[str, dict[str, bool]]:
    """Decisions by reader and case, of the columns case, reader, decision: 1 says COVID-19, 0 anything else.

    With the `unit` patient, the first column is that, and they are of patients; as in `read_groups`.
    """
    found: dict[str, dict[str, bool]] = {}
    for where, (case, reader, decision) in _rows(path, (unit, "reader", "decision")):
        if decision not in ("0", "1"):
            raise FormatError(f"{where}: decision {decision!r}", hint="1 for COVID-19, 0 for anything else")
        if case in found.setdefault(reader, {}):
            raise FormatError(f"{where}: {reader} decides on {unit} {case} twice", hint="keep one line of the two")
        found[reader][case] = decision == "1"
    return found


def read_groups(path: Path, unit: str = "case") -> dict[str, set[str]]:
    """Cases by group, of the columns case, group; a case may be in several, one line each."""
    found: dict[str, set[str]] = {}
    for where, (case, group) in _rows(path, (unit, "group")):
        if case in found.setdefault(group, set()):
            raise FormatError(f"{where}: {unit} {case} stands twice in {group}", hint="keep one line of the two")
        found[group].add(case)
    return found


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    lines = read_text(path, f"a table (CSV) of {', '.join(columns)}").splitlines()
    try:
        rows = csv.DictReader(lines, strict=True)
        if not set(columns) <= set(rows.fieldnames or ()):
            raise FormatError(f"{path.name}: lacks columns", hint=f"the first line is: {','.join(columns)}")
        found = [(f"{path.name}:{rows.line_num}", [(row[c] or "").strip() for c in columns]) for row in rows]
    except csv.Error as error:
        raise FormatError(f"{path.name}: {error}", hint="save it as CSV UTF-8") from None
    for where, values in found:
        if not all(values):
            raise FormatError(f"{where}: an empty field")
    if not found:
        raise FormatError(f"{path.name}: has no lines")
    return found
