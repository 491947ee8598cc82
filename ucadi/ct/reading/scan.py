"""One scan from its files: the best series of a folder, zip or DICOMDIR, or a NIfTI file, as a canonical volume."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ucadi.ct.reading import archive, nifti
from ucadi.ct.reading.dicom import PixelReader
from ucadi.ct.reading.instance import Instance
from ucadi.ct.reading.refusals import Reason, RefusedError, SetAside
from ucadi.ct.reading.series import Series, list_series, preference
from ucadi.ct.reading.stack import SAME_PLACE_MM, Grid, Line, Vector, affine, fill, regular_grid, shift
from ucadi.ct.reading.tags import technical
from ucadi.ct.volume import Affine, HounsfieldArray, Volume, canonical, clip_hu, resize_slice, resized_affine
from ucadi.errors import MismatchError
from ucadi.files import file_digest

SCAN_SUFFIXES = (*nifti.SUFFIXES, archive.SUFFIX, ".dcm")
"""How files are named that are a scan each; folders, and DICOM files of several frames, may have any name."""

TILT_DEGREES = 0.1
"""From this tilt of the gantry on, slices are shifted so that the volume becomes rectangular."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan as a volume, and how it came to be.

    volume: canonical, clipped to the lung window. digest: SHA-256 in hex over the source instances.
    uid, ordinal: which series was used. slices: how many were measured; interpolated: how many were missing.
    unreadable: names of files that are missing because they are broken. set_aside: the other series.
    """

    volume: Volume
    tags: dict[str, str | float]
    digest: str
    flags: tuple[str, ...]
    uid: str = ""
    ordinal: int = 1
    slices: int = 0
    interpolated: int = 0
    unreadable: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()


def read_scan(path: Path, *, size: int | None = None, min_slices: int = 40, series: Collection[str] = ()) -> Scan:
    """Reads a folder of DICOM files (with all folders below it), a zip file of them, what a DICOMDIR lists, a
    single DICOM file with several frames, or a NIfTI file.

    size: resize slices to (size, size) as they are read, so that a scan never lies in memory in full.
    series: Series Instance UIDs that are used in preference to the choice by `preference`.

    Raises RefusedError, which lists all series of the folder with the reason of each.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise RefusedError(Reason.UNREADABLE, "a pipe or a device")
    if nifti.is_nifti(path):
        return _read_nifti(path, size, min_slices)
    if archive.is_archive(path):
        with archive.unpacked(path) as folder:
            return _read_folder(folder, size, min_slices, series)
    return _read_folder(path, size, min_slices, series)


@dataclass(frozen=True)
class KnownScan:
    """What a scan will be read from. The digest is that of `Scan`, unless slices turn out broken or doubled."""

    digest: str
    uid: str = ""
    ordinal: int = 1
    slices: int = 0
    set_aside: tuple[SetAside, ...] = ()


def find_source(path: Path, *, min_slices: int = 40, series: Collection[str] = ()) -> KnownScan | None:
    """The series that `read_scan` will read, by its headers, and the digest of its files; None if there is none.

    Takes a fraction of the time, because no pixels are decoded.
    """
    if nifti.is_nifti(path):
        return KnownScan(file_digest(path))
    if archive.is_archive(path):
        with archive.unpacked(path) as folder:
            return find_source(folder, min_slices=min_slices, series=series)
    found = list_series(path, min_slices=min_slices)
    usable = _usable(found.series, series)
    if not usable:
        return None
    best = usable[0]
    digest = _digest_of_files(instance.path for instance in best.instances)
    aside = tuple(s.set_aside() for s in found.series if s is not best)
    return KnownScan(digest, best.uid, best.ordinal, len(best.instances), aside)


@contextmanager
def source_series(path: Path, digest: str) -> Iterator[tuple[Instance, ...]]:
    """The images of the series at `path` whose digest this is. Their files are there until the block ends.

    Broken and doubled ones are left out, as they were when the scan was read.
    Raises MismatchError if no series there is the one.
    """
    if archive.is_archive(path):
        with archive.unpacked(path) as folder, source_series(folder, digest) as found:
            yield found
            return
    for series in _usable(list_series(path, min_slices=2).series, ()):
        if _digest_of_files(instance.path for instance in series.instances) == digest:
            yield series.instances
            return
    for series in _usable(list_series(path, min_slices=2).series, ()):
        readable = _one_for_each_place(series)
        if _digest_of_files(instance.path for instance in readable) == digest:
            yield readable
            return
    raise MismatchError(
        f"{path}: holds no series that the case was made from",
        hint="name the folder that preprocess read it from, unchanged; --linkage of preprocess says which",
    )


def _one_for_each_place(series: Series) -> tuple[Instance, ...]:
    """The images of a series that can be read, without those at the place of another."""
    assert series.line is not None, "only usable series are read"
    along = series.line.along(series.positions)
    reader = PixelReader()
    kept: list[Instance] = []
    last = -np.inf
    for index in np.argsort(along, kind="stable"):
        if along[index] - last < SAME_PLACE_MM:
            continue
        try:
            reader.read(series.instances[index])
        except RefusedError:
            continue
        kept.append(series.instances[index])
        last = along[index]
    return tuple(kept)


def _usable(series: Collection[Series], wanted: Collection[str]) -> list[Series]:
    """The series that can be used, the best first; of those that are wanted by UID, if any is there."""
    forced = {each.uid for each in series} & set(wanted)
    return sorted((s for s in series if s.reason is None and (not forced or s.uid in forced)), key=preference)


def _digest_of_files(paths: Iterable[Path]) -> str:
    return _series_digest({bytes.fromhex(file_digest(path)) for path in set(paths)})


def _series_digest(file_digests: set[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(file_digests))).hexdigest()


def _read_nifti(path: Path, size: int | None, min_slices: int) -> Scan:
    volume, digest = nifti.read(path, size=size)
    if len(volume.hu) < min_slices:
        raise RefusedError(Reason.TOO_FEW_SLICES, f"{len(volume.hu)} of {min_slices}")
    return Scan(volume, {}, digest, ("nifti",), slices=len(volume.hu))


def _read_folder(folder: Path, size: int | None, min_slices: int, wanted: Collection[str]) -> Scan:
    """The best series that can be read to the end; those that turn out unreadable are set aside too."""
    found = list_series(folder, min_slices=min_slices)
    if not found.series:
        raise RefusedError(Reason.UNREADABLE if found.unreadable else Reason.NO_IMAGES)
    aside = {s.ordinal: s.set_aside() for s in found.series}
    for series in _usable(found.series, wanted):
        try:
            scan = _read_series(series, size, min_slices)
        except RefusedError as refusal:
            aside[series.ordinal] = series.set_aside(refusal.reason, refusal.detail)
            continue
        del aside[series.ordinal]
        broken = (*scan.unreadable, *(path.name for path in found.unreadable))
        flags = (*scan.flags, "several-patients") if found.patients > 1 else scan.flags
        return replace(
            scan,
            flags=tuple(sorted(flags)),
            uid=series.uid,
            ordinal=series.ordinal,
            unreadable=broken,
            set_aside=tuple(aside.values()),
        )
    records = tuple(aside.values())
    main = max(records, key=lambda record: (record.reason is not Reason.NOT_CHOSEN, record.slices))
    raise RefusedError(main.reason, main.detail, records)


def _read_series(series: Series, size: int | None, min_slices: int) -> Scan:
    """Reads the pixels of a series, slice by slice along its line, and puts them on a regular grid."""
    assert series.line is not None, "only usable series are read"
    stack = _Stack(series.line, series.instances[0], size, series.line.along(series.positions))
    reader = PixelReader()
    broken: list[str] = []
    flags: set[str] = set()
    digests: set[bytes] = set()
    along: list[float] = []
    planes: list[HounsfieldArray] = []
    previous: HounsfieldArray | None = None
    for index in np.argsort(stack.along, kind="stable"):
        instance, place = series.instances[index], float(stack.along[index])
        try:
            pixels = reader.read(instance)
        except RefusedError:
            broken.append(instance.path.name)
            continue
        flags |= pixels.flags
        if previous is not None and place - along[-1] < SAME_PLACE_MM:
            if not np.array_equal(previous, pixels.hu):
                raise RefusedError(Reason.CONFLICTING_SLICES, f"at {place:.2f} mm from the first")
            flags.add("duplicates-dropped")
            continue
        previous = pixels.hu
        digests.add(pixels.file_digest)
        along.append(place)
        planes.append(stack.place(pixels.hu, place))
    if len(planes) < max(min_slices, 2):
        if len(broken) > len(planes):
            raise RefusedError(_why_unreadable(series), f"{len(broken)} of {len(series.instances)} slices")
        raise RefusedError(Reason.TOO_FEW_SLICES, f"{len(planes)} of {min_slices}, {len(broken)} unreadable")
    places = np.array(along)
    grid = regular_grid(places)
    observed = {
        "derived": "DERIVED" in series.instances[0].image_type,
        "gantry-tilt": stack.tilted,
        "interpolated": grid.missing > 0,
        "irregular-spacing": grid.irregular,
        "lossy": any(instance.lossy for instance in series.instances),
        "unreadable-slices": bool(broken),
    }
    return Scan(
        volume=canonical(Volume(fill(grid, places, planes), stack.affine(grid))),
        tags=technical(series.instances[0].header),
        digest=_series_digest(digests),
        flags=tuple(sorted(flags | {name for name, applies in observed.items() if applies})),
        slices=len(planes),
        interpolated=grid.missing,
        unreadable=tuple(dict.fromkeys(broken)),
    )


class _Stack:
    """Where slices of a series belong, and how each is brought there: clipped, shifted if tilted, resized.

    A tilted gantry stacks slices askew. They are shifted within their planes, relative to the middle of the
    stack, until they lie square; what is shifted out of the image is lost, and air moves in.
    """

    def __init__(self, line: Line, first: Instance, size: int | None, along: Vector) -> None:
        self.line = line
        self.along = along
        self.shape = first.shape
        self.size = first.shape if size is None else (size, size)
        self.down, self.across = np.array(first.down), np.array(first.across)
        self.row_mm, self.column_mm = first.spacing_mm
        self.tilted = line.tilt_degrees > TILT_DEGREES
        self.middle = float(np.median(along)) if self.tilted else 0.0

    def place(self, hu: HounsfieldArray, along: float) -> HounsfieldArray:
        """The slice, int16 (row, column), as it goes on the grid."""
        plane = clip_hu(hu)
        if self.tilted:
            askew = (along - self.middle) * (self.line.step - self.line.normal)
            plane = shift(plane, askew @ self.down / self.row_mm, askew @ self.across / self.column_mm)
        return resize_slice(plane, *self.size)

    def affine(self, grid: Grid) -> Affine:
        """The affine of the grid of slices that `place` has made."""
        step = self.line.normal if self.tilted else self.line.step
        origin = self.line.origin + self.middle * self.line.step + (grid.start - self.middle) * step
        matrix = affine(origin, step * grid.spacing_mm, self.down * self.row_mm, self.across * self.column_mm)
        return resized_affine(matrix, self.shape, self.size)


def _why_unreadable(series: Series) -> Reason:
    """Pixels that no slice yields are of an encoding that the decoder at hand does not do."""
    return Reason.NO_DECODER if series.instances[0].compressed else Reason.UNREADABLE
