"""DICOMDIR: the index of a CD or a PACS export, and the image files that it lists.

An index is not trusted: names that lead out of its folder are not followed, and what it lists but is not there is
reported.

Source: DICOM PS3.3 F.3 (basic directory), PS3.10 8.2 (file ids).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from ucadi.ct.reading.elements import integer, text, words
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.files import opened

NAME = "DICOMDIR"

MAX_RECORDS = 200_000


@dataclass(frozen=True)
class Index:
    """The images that an index lists: those that are there, and the names of those that are not, or lie elsewhere."""

    files: tuple[Path, ...]
    missing: tuple[Path, ...]


def is_index(path: Path) -> bool:
    """Whether a file is named as the index of a medium is."""
    return path.name.upper() == NAME


def read(path: Path) -> Index:
    """The image files that the index at `path` lists. Raises RefusedError (UNREADABLE) for a broken one."""
    try:
        with warnings.catch_warnings(), opened(path) as file:
            warnings.simplefilter("ignore")  # they would quote the file
            dataset = pydicom.dcmread(file, specific_tags=["DirectoryRecordSequence"])
            records = list(dataset.get("DirectoryRecordSequence") or [])
        names = [words(record, "ReferencedFileID") for record in records if _is_image(record)]
        furthest = max((integer(record, offset) for record in records for offset in _OFFSETS), default=0)
    except Exception as error:  # whatever a parser of broken input raises
        raise RefusedError(Reason.UNREADABLE, f"{NAME}: {type(error).__name__}") from error
    if len(records) > MAX_RECORDS:
        raise RefusedError(Reason.UNREADABLE, f"{NAME}: {len(records)} records")
    if furthest >= path.stat().st_size:
        raise RefusedError(Reason.UNREADABLE, f"{NAME}: truncated")
    folder = _Folder(path.parent)
    files: list[Path] = []
    missing: list[Path] = []
    for parts in dict.fromkeys(names):
        found = folder.find(parts)
        if found is None:
            missing.append(Path("/".join(parts)))
        else:
            files.append(found)
    return Index(tuple(files), tuple(missing))


_OFFSETS = ("OffsetOfTheNextDirectoryRecord", "OffsetOfReferencedLowerLevelDirectoryEntity")


def _is_image(record: pydicom.Dataset) -> bool:
    return text(record, "DirectoryRecordType") == "IMAGE"


class _Folder:
    """Where file ids are looked for. Media that were copied often have their names in lower case."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real = root.resolve()
        self.names: dict[Path, dict[str, str]] = {}

    def find(self, parts: tuple[str, ...]) -> Path | None:
        """The file with this id, if there is one in the folder."""
        path = self.root
        for part in parts:
            if part in ("", ".", "..") or set(part) & set("/\\\0:"):
                return None
            name = self._entries(path).get(part.upper())
            if name is None:
                return None
            path /= name
        inside = path.is_file() and path.resolve().is_relative_to(self.real)
        return path if inside else None

    def _entries(self, folder: Path) -> dict[str, str]:
        """The names in a folder, by their capitals."""
        if folder not in self.names:
            entries: Iterator[Path] = folder.iterdir() if folder.is_dir() else iter(())
            self.names[folder] = {entry.name.upper(): entry.name for entry in sorted(entries)}
        return self.names[folder]
