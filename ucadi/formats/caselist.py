"""The cases of a site: the CSV table of their patients and diagnoses, and the scans that it names.

The table is described in docs/preprocess.md.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ucadi import filetypes
from ucadi.ct.reading.dicomdir import is_index
from ucadi.ct.reading.scan import SCAN_SUFFIXES
from ucadi.errors import FormatError, MismatchError, SeriesError
from ucadi.files import read_text
from ucadi.labels import Diagnosis

COLUMNS = ("case", "patient", "label")

MAX_NAME = 240
"""Bytes of a file's name: what file systems hold, less the suffix that a case may leave out."""


@dataclass(frozen=True)
class ListedCase:
    """A line of the file. case: where the scan lies, relative to the source folder."""

    case: str
    patient: str
    label: Diagnosis | None


def read(path: Path, *, unlabelled: bool = False) -> list[ListedCase]:
    """The cases of a labels file. `patient` may be absent or empty (each case is then its own patient).

    Separators are commas or, as some spreadsheets write, semicolons. Raises FormatError, naming the line, for
    unknown labels, for empty ones unless `unlabelled`, for cases named twice or outside the folder.
    """
    lines = read_text(path, "a labels file (CSV)").splitlines()
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if ";" in header and "," not in header else ",", strict=True)
    try:
        names = [name.strip().lower() for name in rows.fieldnames or ()]
    except csv.Error as error:
        raise FormatError(f"{path.name}:1: {error}", hint="the first line is: case,patient,label") from None
    needed = {"case"} if unlabelled else {"case", "label"}
    if not needed <= set(names):
        raise FormatError(
            f"{path.name}: the columns are {', '.join(names) or 'none'}", hint="the first line is: case,patient,label"
        )
    rows.fieldnames = names
    entries: dict[str, ListedCase] = {}
    try:
        for row in rows:
            entry = _entry(row, f"{path.name}:{rows.line_num}", unlabelled)
            if entry.case in entries:
                raise FormatError(f"{path.name}:{rows.line_num}: case {entry.case} stands twice")
            entries[entry.case] = entry
    except csv.Error as error:
        raise FormatError(f"{path.name}:{rows.line_num}: {error}") from None
    return list(entries.values())


def match(source: Path, entries: list[ListedCase] | None) -> list[ListedCase]:
    """The cases of `source`: those of the labels file, after checking that each exists and none is left out.

    Without a labels file, every folder, zip and NIfTI file at the top of `source` is a case without a label.
    """
    if not source.is_dir():
        raise SeriesError(
            filetypes.no_folder(source, "a folder of cases"),
            hint="it holds one folder of DICOM files per case: name the folder above them",
        )
    if entries is None:
        names = sorted(path.name for path in source.iterdir() if _is_scan(path))
        entries = [ListedCase(name, name, None) for name in names]
    if not entries:
        raise SeriesError(f"{source}: no cases", hint="it holds a folder of DICOM files, a .zip or a .nii.gz per case")
    missing = [entry.case for entry in entries if not scan_path(source, entry.case).exists()]
    if missing:
        raise MismatchError(
            f"{source}: the labels name {_some(missing)}, which it does not hold",
            hint="the column case is the folder's path relative to it",
        )
    extra = list(_unlisted(source, {_covered(scan_path(source, entry.case)) for entry in entries}))
    if extra:
        raise MismatchError(
            f"{source}: holds {_some(extra)}, which the labels file does not name",
            hint="add a line for each, or move them elsewhere",
        )
    return entries


def scan_path(source: Path, case: str) -> Path:
    """Where a case lies: a folder, or a file whose suffix the labels may leave out."""
    candidates = [source / case, *(source / (case + suffix) for suffix in SCAN_SUFFIXES)]
    return next((path for path in candidates if path.exists()), candidates[0])


def _entry(row: dict[str, str | None], where: str, unlabelled: bool) -> ListedCase:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    place = PurePosixPath(values["case"].replace("\\", "/"))
    nameable = str(place).isprintable() and all(len(part.encode()) <= MAX_NAME for part in place.parts)
    if place == PurePosixPath() or place.is_absolute() or ".." in place.parts or not nameable:
        raise FormatError(f"{where}: {values['case']!r} is no path within the source folder")
    if not values["label"] and not unlabelled:
        raise FormatError(f"{where}: case {place} has no label", hint="--unlabelled admits cases without")
    try:
        label = Diagnosis.parse(values["label"]) if values["label"] else None
    except FormatError as error:
        raise FormatError(f"{where}: {error.message}", hint=error.hint) from None
    return ListedCase(str(place), values["patient"] or str(place), label)


def _covered(path: Path) -> Path:
    """What a case takes up: a DICOMDIR the whole folder that it lies in."""
    return path.parent if is_index(path) else path


def _is_scan(path: Path) -> bool:
    """Whether a case could lie here: a folder with any file in it or below, a zip, NIfTI or DICOM file."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(files for _, _, files in os.walk(path))
    return path.is_file() and path.name.lower().endswith(SCAN_SUFFIXES)


def _unlisted(folder: Path, cases: set[Path]) -> Iterator[str]:
    """Scans below `folder` that are not among the cases: whole folders, searched only where cases lie deeper."""
    for path in sorted(folder.iterdir()):
        if path in cases or not _is_scan(path):
            continue
        if any(path in case.parents for case in cases):
            yield from (f"{path.name}/{name}" for name in _unlisted(path, cases))
        else:
            yield path.name


def _some(names: list[str]) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
