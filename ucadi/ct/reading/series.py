"""The series of one case: which there are, which one is used, and why not the others.

Images belong together when they share the Series Instance UID (where it is missing, the folder) and all that
makes a stack: size, orientation, spacing, kind of image, kernel. A series that mixes reconstructions, or
holds its own localizer, falls apart into what it is made of, and each part is judged for itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ucadi.ct.reading import dicomdir
from ucadi.ct.reading.dicom import read_headers
from ucadi.ct.reading.instance import Instance
from ucadi.ct.reading.refusals import Reason, RefusedError, SetAside
from ucadi.ct.reading.stack import SAME_PLACE_MM, Line, Vector, regular_grid, stack_line

SHARP_KERNEL_PREFIXES = ("LUNG", "BONE", "EDGE", "ULTRA", "SHARP", "YC", "YD", "YE", "D", "E", "FC5", "FC8", "FC3")
"""Kernels that enhance edges and noise, beside Siemens' and others' whose number is 60 or more."""


@dataclass(frozen=True, eq=False)
class Series:
    """Images of one kind. ordinal: its place among the series of its case, from 1.

    reason, detail: why it is refused, or None. line: along which it is stacked, where it is not refused.
    """

    ordinal: int
    instances: tuple[Instance, ...]
    reason: Reason | None
    detail: str
    line: Line | None

    @property
    def uid(self) -> str:
        """Series Instance UID; empty where the files have none."""
        return self.instances[0].series_uid

    @property
    def positions(self) -> Vector:
        """Where each image begins, float64 (instances, 3)."""
        return np.array([instance.position for instance in self.instances])

    def set_aside(self, reason: Reason | None = None, detail: str = "") -> SetAside:
        """The record that this series was not used: for its own reason, or for the one given."""
        why, words = (self.reason or Reason.NOT_CHOSEN, self.detail) if reason is None else (reason, detail)
        return SetAside(self.ordinal, len(self.instances), why, words, self.uid)


@dataclass(frozen=True, eq=False)
class Folder:
    """What a folder holds: its series, and the files that are DICOM but cannot be read."""

    series: tuple[Series, ...]
    unreadable: tuple[Path, ...]

    @property
    def patients(self) -> int:
        """How many patients the series are of, by Patient ID."""
        return len({i.patient for series in self.series for i in series.instances if i.patient})


def list_series(place: Path, *, min_slices: int) -> Folder:
    """Reads the headers of all files at `place` and forms their series.

    A place is a folder with all that is below it, a DICOMDIR with what it lists, or a single file. What a DICOMDIR
    lists but is not there counts as unreadable.
    """
    instances: list[Instance] = []
    files, missing = _files(place)
    unreadable = list(missing)
    for path in files:
        try:
            instances += read_headers(path)
        except RefusedError:
            unreadable.append(path)
    groups: dict[object, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(_kind(instance), []).append(instance)
    parts = [part for group in groups.values() for part in _acquisitions(group)]
    parts.sort(key=lambda part: (part[0].series_uid, str(_kind(part[0])), part[0].acquisition))
    series = tuple(_judge(ordinal, part, min_slices) for ordinal, part in enumerate(parts, start=1))
    return Folder(series, tuple(unreadable))


def preference(series: Series) -> tuple[object, ...]:
    """Sorts series by how well they suit, the best first: original axial, most slices, thin, soft kernel."""
    first = series.instances[0]
    kinds = {word.upper() for word in first.image_type}
    return (
        "DERIVED" in kinds,
        bool(kinds) and not kinds & {"AXIAL", "VOLUME"},
        -len(_places(series)),
        first.thickness_mm if math.isfinite(first.thickness_mm) else math.inf,
        is_sharp(first.kernel),
        series.ordinal,
    )


def is_sharp(kernel: str) -> bool:
    """Whether a reconstruction kernel enhances edges, as lung and bone kernels do."""
    name = kernel.split("\\")[0].upper()
    digits = "".join(character for character in name if character.isdigit())[:2]
    if name[:1] in "BHUIQ" and len(digits) == 2:
        return int(digits) >= 60
    return name.startswith(SHARP_KERNEL_PREFIXES)


def _files(place: Path) -> tuple[Iterable[Path], Sequence[Path]]:
    """The files at a place in a fixed order, and those that should be there but are not."""
    if place.is_file():
        if not dicomdir.is_index(place):
            return (place,), ()
        index = dicomdir.read(place)
        return index.files, index.missing
    missing: list[Path] = []
    for path in filter(dicomdir.is_index, sorted(place.iterdir()) if place.is_dir() else ()):
        try:
            missing += dicomdir.read(path).missing
        except RefusedError:
            missing.append(path)
    return _walk(place), missing


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, without hidden ones, in a fixed order; links to folders are not followed."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _kind(instance: Instance) -> tuple[object, ...]:
    """What images must share to be one stack. Directions and lengths are rounded: they are text in the file."""
    place = instance.series_uid or f"folder {instance.path.parent}"
    if instance.reason is not None:
        return place, instance.reason
    directions = tuple(round(part, 3) + 0.0 for part in (*instance.across, *instance.down))
    spacing = tuple(round(side, 4) for side in instance.spacing_mm)
    return place, None, instance.image_type[:3], instance.kernel, instance.shape, spacing, directions


def _acquisitions(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Splits images by acquisition if two of these cover the same stretch of the patient, as phases do.

    Acquisitions that follow one another are one volume.
    """
    split: dict[str, list[Instance]] = {}
    for instance in instances:
        split.setdefault(instance.acquisition, []).append(instance)
    parts = list(split.values())
    if len(parts) == 1 or instances[0].reason is not None:
        return [list(instances)]
    normal = np.cross(instances[0].across, instances[0].down)
    stretches = sorted((min(along), max(along)) for along in ([normal @ i.position for i in part] for part in parts))
    overlap = any(begin < end + SAME_PLACE_MM for (_, end), (begin, _) in pairwise(stretches))
    return parts if overlap else [list(instances)]


def _judge(ordinal: int, instances: Sequence[Instance], min_slices: int) -> Series:
    """A series of these images, refused if the headers alone say that it must be."""
    images = tuple(sorted(instances, key=lambda instance: (instance.position, str(instance.path), instance.frame)))
    reason = images[0].reason
    if reason is not None:
        return Series(ordinal, images, reason, "", None)
    first = images[0]
    try:
        if len(images) < min_slices:
            raise RefusedError(Reason.TOO_FEW_SLICES, f"{len(images)} of {min_slices}")
        line = stack_line(
            np.array([instance.position for instance in images]),
            np.array(first.across),
            np.array(first.down),
            min(first.spacing_mm),
        )
        series = Series(ordinal, images, None, "", line)
        places = _places(series)
        if len(places) < min_slices:
            raise RefusedError(Reason.TOO_FEW_SLICES, f"{len(places)} of {min_slices}")
        regular_grid(places)
    except RefusedError as refusal:
        return Series(ordinal, images, refusal.reason, refusal.detail, None)
    return series


def _places(series: Series) -> Vector:
    """The different places of a usable series' images along its line, ascending, in mm."""
    assert series.line is not None, "only a usable series has a line"
    along = np.sort(series.line.along(series.positions))
    places: Vector = along[np.concatenate([[True], np.diff(along) >= SAME_PLACE_MM])]
    return places
