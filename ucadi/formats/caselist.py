"""The labels file of a site: a CSV table of its cases, their patients and diagnoses. See docs/formats/dataset.md."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ucadi.errors import FormatError
from ucadi.labels import Diagnosis

COLUMNS = ("case", "patient", "label")


@dataclass(frozen=True)
class Entry:
    """A line of the file. case: where the scan lies, relative to the source folder."""

    case: str
    patient: str
    label: Diagnosis | None


def read(path: Path, *, unlabelled: bool = False) -> list[Entry]:
    """The cases of a labels file. `patient` may be absent or empty (each case is then its own patient).

    Separators are commas or, as some spreadsheets write, semicolons. Raises FormatError, naming the line, for
    unknown labels, for empty ones unless `unlabelled`, for cases named twice or outside the folder.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FormatError(f"{path.name}: not UTF-8 text", hint="save it as CSV UTF-8") from None
    lines = text.splitlines()
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if ";" in header and "," not in header else ",", strict=True)
    names = [name.strip().lower() for name in rows.fieldnames or ()]
    needed = {"case"} if unlabelled else {"case", "label"}
    if not needed <= set(names):
        raise FormatError(
            f"{path.name}: the columns are {', '.join(names) or 'none'}", hint="the first line is: case,patient,label"
        )
    rows.fieldnames = names
    entries: dict[str, Entry] = {}
    try:
        for row in rows:
            entry = _entry(row, f"{path.name}:{rows.line_num}", unlabelled)
            if entry.case in entries:
                raise FormatError(f"{path.name}:{rows.line_num}: case {entry.case} stands twice")
            entries[entry.case] = entry
    except csv.Error as error:
        raise FormatError(f"{path.name}:{rows.line_num}: {error}") from None
    return list(entries.values())


def _entry(row: dict[str, str | None], where: str, unlabelled: bool) -> Entry:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    place = PurePosixPath(values["case"].replace("\\", "/"))
    if place == PurePosixPath() or place.is_absolute() or ".." in place.parts:
        raise FormatError(f"{where}: {values['case']!r} is no path within the source folder")
    if not values["label"] and not unlabelled:
        raise FormatError(f"{where}: case {place} has no label", hint="--unlabelled admits cases without")
    try:
        label = Diagnosis.parse(values["label"]) if values["label"] else None
    except FormatError as error:
        raise FormatError(f"{where}: {error.message}", hint=error.hint) from None
    return Entry(str(place), values["patient"] or str(place), label)
