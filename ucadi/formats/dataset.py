"""A dataset: preprocessed CT volumes of one site in one HDF5 file. The format is docs/formats/dataset.md.

Nothing in it names a patient: cases and patients are salted hashes, technical facts are words of a table,
rejected series are numbered. Equal inputs give equal bytes. Reading trusts nothing: links, external or
virtual storage and sizes that the file cannot hold are refused before memory is allocated.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ucadi import filetypes
from ucadi.ct.volume import Volume
from ucadi.errors import FormatError
from ucadi.formats.hdf5 import Attribute, Reader
from ucadi.formats.output import new_file
from ucadi.labels import Diagnosis

FORMAT = "ucadi-dataset"
VERSION = 1
VERSION_SYNTHETIC = 2
"""Of a dataset with synthetic cases: a program that knows only scans refuses it."""

MAX_CASES = 100_000
MAX_SLICES = 10_000
MAX_SIDE = 4096

IDENTIFIER = re.compile(r"[0-9a-f]{16,64}")
"""What a case's or patient's id looks like: hex of a salted hash."""


@dataclass(frozen=True)
class Synthetic:
    """That no scanner made a case: the translator's digest, the kind of CT made, and the id of the case it is from."""

    model: str
    kind: str
    source: str


@dataclass(frozen=True, eq=False)
class Case:
    """One scan, ready for the network.

    id, patient: salted hashes in hex. positions_mm: float64 (slices,), ascending from the feet. tags: technical
    facts by DICOM keyword. series_digest: SHA-256 in hex over the source instances. flags: what was done to
    the volume or is odd about it, as words. synthetic: None for a scan.
    """

    id: str
    patient: str
    label: Diagnosis | None
    volume: Volume
    positions_mm: npt.NDArray[np.float64]
    tags: dict[str, str | float]
    series_digest: str
    flags: tuple[str, ...]
    synthetic: Synthetic | None = None


@dataclass(frozen=True)
class Rejection:
    """A series that was not used, or with `series` 0 a whole case. Series are numbered within their case.

    reason: a word of `ucadi.ct.refusals.Reason`. slices: how many instances the series had.
    """

    case: str
    series: int
    reason: str
    slices: int


def write(
    path: Path,
    cases: Iterable[Case],
    rejections: Iterable[Rejection],
    *,
    size: int,
    attributes: Mapping[str, Attribute] | None = None,
    force: bool = False,
) -> None:
    """Writes cases to `path` one by one, whole or not at all; all volumes are (slices, size, size).

    `rejections` is read after the last case, so it may be a list that grows while `cases` are made.
    `attributes` are the parameters of preprocessing, written at the root.
    """
    with new_file(path, force=force) as part, h5py.File(part, "w") as file:
        _set(file, "format", FORMAT)
        _set(file, "size", size)
        parameters = file.create_group("parameters")
        for name, value in sorted((attributes or {}).items()):
            _set(parameters, name, value)
        group = file.create_group("cases")
        for case in cases:
            _write_case(group, case, size)
        synthetic = any("synthetic_model" in made.attrs for made in group.values())
        _set(file, "version", VERSION_SYNTHETIC if synthetic else VERSION)
        _write_rejections(file, sorted(rejections, key=lambda r: (r.case, r.series)))


@contextmanager
def open(path: Path) -> Iterator[Dataset]:
    """Opens a dataset for reading. Raises FormatError for anything but a sound dataset of this version."""
    path = Path(path)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise filetypes.unreadable(path, error, FORMAT) from None
    if (other := filetypes.wrong(path, FORMAT)) is not None:
        raise other
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError:
        raise FormatError(f"{path.name}: truncated, or damaged", hint="make it again with ucadi preprocess") from None
    with file:
        yield Dataset(path, file)


class Dataset(Reader):
    """An open dataset; volumes are read from the file when asked for. Cases are in the order of their ids."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path.name)
        self.path = path
        found = self._text(file, "format", default="")
        if found != FORMAT:
            raise FormatError(f"{self._name}: not a dataset", hint="datasets are made by ucadi preprocess")
        version = self._integer(file, "version")
        if version not in (VERSION, VERSION_SYNTHETIC):
            raise FormatError(
                f"{self._name}: version {version} of {FORMAT}; this program reads {VERSION} and {VERSION_SYNTHETIC}",
                hint="use the same release of ucadi everywhere",
            )
        self.size: int = self._integer(file, "size")
        if not 1 <= self.size <= MAX_SIDE:
            raise FormatError(f"{self._name}: size {self.size} is absurd")
        self.attributes: dict[str, Attribute] = self._attributes(self._group(file, "parameters"))
        cases = self._group(file, "cases")
        if len(cases) > MAX_CASES:
            raise FormatError(f"{self._name}: {len(cases)} cases is absurd")
        self.ids: list[str] = sorted(self._identifier(name) for name in cases)
        self._groups = [self._group(cases, name) for name in self.ids]
        self.patients: list[str] = [self._identifier(self._text(group, "patient")) for group in self._groups]
        self.labels: list[Diagnosis | None] = [self._label(group) for group in self._groups]
        self.series_digests: list[str] = [self._text(group, "series_digest") for group in self._groups]
        self.synthetic: list[Synthetic | None] = [self._synthetic(group) for group in self._groups]
        self.rejections: list[Rejection] = self._rejections(file)

    def __len__(self) -> int:
        return len(self.ids)

    def of_patients(self, patients: Collection[str]) -> Dataset:
        """A view with only the cases of these patients. It is of the same file, and so has the same digest."""
        return self._view([index for index, patient in enumerate(self.patients) if patient in patients])

    def scans(self) -> Dataset:
        """A view without the synthetic cases."""
        return self._view([index for index, synthetic in enumerate(self.synthetic) if synthetic is None])

    def _view(self, kept: list[int]) -> Dataset:
        view = copy.copy(self)
        for name in ("ids", "_groups", "patients", "labels", "series_digests", "synthetic"):
            values = getattr(self, name)
            setattr(view, name, [values[index] for index in kept])
        return view

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file in hex, by which other artefacts name this dataset."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def volume(self, index: int) -> Volume:
        """The volume of a case, int16 (slices, size, size) with its affine."""
        group = self._groups[index]
        stored = self._stored_volume(group)
        affine = self._array(group, "affine", "<f8", 2)
        if affine.shape != (4, 4):
            raise self._error(group, f"an affine of {affine.shape}")
        matrix = affine[()]
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
            raise self._error(group, "an affine that maps nowhere")
        return Volume(self._read(group, stored, ()), matrix.astype(np.float64, copy=False))

    def length(self, index: int) -> int:
        """How many slices a case has."""
        return int(self._stored_volume(self._groups[index]).shape[0])

    def slices(self, index: int, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
        """Some slices of a case, int16 (len(indices), size, size); no others are read and decompressed."""
        group = self._groups[index]
        stored = self._stored_volume(group)
        wanted, places = np.unique(indices, return_inverse=True)
        return np.stack([self._read(group, stored, int(i)) for i in wanted])[places]

    def _stored_volume(self, group: h5py.Group) -> h5py.Dataset:
        """A case's volume, as it lies in the file."""
        stored = self._array(group, "volume", "<i2", 3)
        slices, rows, columns = stored.shape
        if not 1 <= slices <= MAX_SLICES or (rows, columns) != (self.size, self.size):
            raise self._error(group, f"a volume of {stored.shape}, not (slices, {self.size}, {self.size})")
        if stored.chunks != (1, rows, columns) or stored.id.get_num_chunks() != slices:
            raise self._error(group, "not stored slice by slice, or truncated")
        return stored

    def _read(self, group: h5py.Group, stored: h5py.Dataset, place: Any) -> npt.NDArray[np.int16]:
        try:
            hu: npt.NDArray[np.int16] = stored[place].astype(np.int16, copy=False)
        except OSError as error:
            raise self._error(group, f"the volume is damaged: {error}") from None
        return hu

    def case(self, index: int) -> Case:
        """Everything about a case."""
        group = self._groups[index]
        volume = self.volume(index)
        positions = self._array(group, "positions_mm", "<f8", 1)
        if positions.shape != volume.hu.shape[:1]:
            raise self._error(group, f"{positions.shape[0]} positions for {len(volume.hu)} slices")
        return Case(
            id=self.ids[index],
            patient=self.patients[index],
            label=self.labels[index],
            volume=volume,
            positions_mm=positions[()],
            tags=self.tags(index),
            series_digest=self.series_digests[index],
            flags=tuple(self._text(group, "flags").split()),
            synthetic=self.synthetic[index],
        )

    def tags(self, index: int) -> dict[str, str | float]:
        """The technical facts about a case."""
        tags = self._attributes(self._group(self._groups[index], "tags"))
        return {name: value if isinstance(value, str) else float(value) for name, value in tags.items()}

    def _rejections(self, file: h5py.File) -> list[Rejection]:
        table = self._array(file, "rejections", None, 1)
        if table.dtype != _REJECTION or table.shape[0] > MAX_CASES * 10:
            raise FormatError(f"{self._name}: the table of rejections is malformed")
        try:
            return [Rejection(row[0].decode(), int(row[1]), row[2].decode(), int(row[3])) for row in table[()]]
        except UnicodeDecodeError:
            raise FormatError(f"{self._name}: the table of rejections is malformed") from None

    def _label(self, group: h5py.Group) -> Diagnosis | None:
        text = self._text(group, "label")
        try:
            return Diagnosis.parse(text) if text else None
        except FormatError as error:
            raise self._error(group, error.message) from None

    def _synthetic(self, group: h5py.Group) -> Synthetic | None:
        model, kind, source = (self._text(group, f"synthetic_{part}", "") for part in ("model", "kind", "source"))
        if any((model, kind, source)) and not all((model, kind, source)):
            raise self._error(group, "a synthetic case that does not say what made it of what")
        return Synthetic(model, kind, self._identifier(source)) if model else None

    def _identifier(self, text: str) -> str:
        if not IDENTIFIER.fullmatch(text):
            raise FormatError(f"{self._name}: {text[:80]!r} is not the id of a case or patient")
        return text


_REJECTION = np.dtype([("case", "S64"), ("series", "<i4"), ("reason", "S32"), ("slices", "<i4")])


def _write_case(cases: h5py.Group, case: Case, size: int) -> None:
    """One group: the volume in chunks of a slice, so that a slab reads 16 chunks, and small attributes."""
    if not (IDENTIFIER.fullmatch(case.id) and IDENTIFIER.fullmatch(case.patient)):
        raise ValueError("ids of cases and patients are hex of a salted hash")
    if case.volume.hu.shape[1:] != (size, size) or len(case.positions_mm) != len(case.volume.hu):
        raise ValueError(f"a volume of {case.volume.hu.shape} with {len(case.positions_mm)} positions, size {size}")
    group = cases.create_group(case.id)
    options = {"track_times": False}
    chunks = (1, size, size)
    group.create_dataset(
        "volume",
        data=case.volume.hu.astype("<i2", copy=False),
        chunks=chunks,
        compression="gzip",
        compression_opts=4,
        shuffle=True,
        fletcher32=True,
        **options,
    )
    group.create_dataset("affine", data=case.volume.affine.astype("<f8"), **options)
    group.create_dataset("positions_mm", data=case.positions_mm.astype("<f8"), **options)
    _set(group, "patient", case.patient)
    _set(group, "label", "" if case.label is None else case.label.label)
    _set(group, "series_digest", case.series_digest)
    _set(group, "flags", " ".join(case.flags))
    if case.synthetic:
        for name, value in vars(case.synthetic).items():
            _set(group, f"synthetic_{name}", value)
    tags = group.create_group("tags")
    for name, value in sorted(case.tags.items()):
        _set(tags, name, value if isinstance(value, str) else float(value))


def _write_rejections(file: h5py.File, rejections: list[Rejection]) -> None:
    rows = [(r.case.encode(), r.series, r.reason.encode(), r.slices) for r in rejections]
    file.create_dataset("rejections", data=np.array(rows, dtype=_REJECTION), track_times=False)


def _set(group: h5py.Group, name: str, value: Attribute) -> None:
    """Attributes have fixed length: HDF5 keeps variable ones apart, where a reader cannot bound them first."""
    stored: Any
    if isinstance(value, str):
        text = value.encode()
        stored = np.bytes_(text) if text else h5py.Empty("S1")
    else:
        stored = np.int64(value) if isinstance(value, int) else np.float64(value)
    group.attrs[name] = stored
