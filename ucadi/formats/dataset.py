"""A dataset: preprocessed CT volumes of one site in one HDF5 file. The format is docs/formats/dataset.md.

Nothing in it names a patient: cases and patients are salted hashes, technical facts are words of a table,
rejected series are numbered. Equal inputs give equal bytes. Reading trusts nothing: links, external or
virtual storage and sizes that the file cannot hold are refused before memory is allocated.
"""

from __future__ import annotations

import copy
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
from ucadi.files import file_digest, new_file, opened
from ucadi.formats.container import check_version
from ucadi.formats.hdf5 import Array, Attribute, HDF5Group, opened_file
from ucadi.formats.unfailing import Unfailing
from ucadi.kinds import Format
from ucadi.labels import Diagnosis

FORMAT = Format.DATASET.id
VERSION, VERSION_SYNTHETIC = Format.DATASET.versions
"""The second is of a dataset with synthetic cases: a program that knows only scans refuses it."""

MAX_CASES = 100_000
MAX_SLICES = 10_000
MAX_SIDE = 4096
MAX_MM = 1e9

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

    reason: a word of `ucadi.ct.reading.refusals.Reason`. slices: how many instances the series had.
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
    with new_file(path, force=force, mode=Format.DATASET.mode) as part, Unfailing(part) as target:
        with h5py.File(target, "w") as file:
            _set(file, "format", FORMAT)
            _set(file, "size", size)
            parameters = file.create_group("parameters")
            for name, value in sorted((attributes or {}).items()):
                _set(parameters, name, value)
            group, version = file.create_group("cases"), VERSION
            for case in cases:
                _write_case(group, case, size)
                version = VERSION_SYNTHETIC if case.synthetic else version
                target.check()
            _set(file, "version", version)
            _write_rejections(file, sorted(rejections, key=lambda r: (r.case, r.series)))
        target.check()


@contextmanager
def open(path: Path) -> Iterator[Dataset]:
    """Opens a dataset for reading. Raises FormatError for anything but a sound dataset of this version."""
    path = Path(path)
    with opened(path, FORMAT):
        if (other := filetypes.wrong(path, FORMAT)) is not None:
            raise other
    with opened_file(path) as root:
        yield Dataset(path, root)


class Dataset:
    """An open dataset; volumes are read from the file when asked for. Cases are in the order of their ids."""

    def __init__(self, path: Path, root: HDF5Group) -> None:
        self.path = path
        self._name = path.name
        found = root.text("format", default="")
        if found != FORMAT:
            raise FormatError(f"{self._name}: not a dataset", hint="datasets are made by ucadi preprocess")
        version = root.integer("version")
        check_version(version, self._name, FORMAT)
        self.size: int = root.integer("size")
        if not 1 <= self.size <= MAX_SIDE:
            raise FormatError(f"{self._name}: size {self.size} is absurd")
        self.attributes: dict[str, Attribute] = root.group("parameters").attributes()
        cases = root.group("cases")
        if len(cases.names) > MAX_CASES:
            raise FormatError(f"{self._name}: {len(cases.names)} cases is absurd")
        self.ids: list[str] = sorted(self._identifier(name) for name in cases.names)
        self._groups = [cases.group(name) for name in self.ids]
        self.patients: list[str] = [self._identifier(group.text("patient")) for group in self._groups]
        self.labels: list[Diagnosis | None] = [self._label(group) for group in self._groups]
        self.series_digests: list[str] = [group.text("series_digest") for group in self._groups]
        self.synthetic: list[Synthetic | None] = [self._synthetic(group) for group in self._groups]
        self.rejections: list[Rejection] = self._rejections(root)

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
        return file_digest(self.path)

    def volume(self, index: int) -> Volume:
        """The volume of a case, int16 (slices, size, size) with its affine."""
        group = self._groups[index]
        stored = self._stored_volume(group)
        affine = group.array("affine", "<f8", 2)
        if affine.shape != (4, 4):
            raise group.error(f"an affine of {affine.shape}")
        matrix = affine.whole()
        with np.errstate(all="ignore"):
            sound = (np.abs(matrix) < MAX_MM).all() and abs(np.linalg.det(matrix)) >= 1e-9
        if not sound:
            raise group.error("an affine that maps nowhere")
        return Volume(stored.whole(), matrix)

    def length(self, index: int) -> int:
        """How many slices a case has."""
        return int(self._stored_volume(self._groups[index]).shape[0])

    def slices(self, index: int, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
        """Some slices of a case, int16 (len(indices), size, size); no others are read and decompressed."""
        stored = self._stored_volume(self._groups[index])
        wanted, places = np.unique(indices, return_inverse=True)
        return np.stack([stored.part(int(i)) for i in wanted])[places]

    def _stored_volume(self, group: HDF5Group) -> Array:
        """A case's volume, as it lies in the file."""
        stored = group.array("volume", "<i2", 3)
        slices, rows, columns = stored.shape
        if not 1 <= slices <= MAX_SLICES or (rows, columns) != (self.size, self.size):
            raise group.error(f"a volume of {stored.shape}, not (slices, {self.size}, {self.size})")
        if not stored.sliced:
            raise group.error("a volume that is not stored slice by slice")
        return stored

    def case(self, index: int) -> Case:
        """Everything about a case."""
        group = self._groups[index]
        volume = self.volume(index)
        positions = group.array("positions_mm", "<f8", 1)
        if positions.shape != volume.hu.shape[:1]:
            raise group.error(f"{positions.shape[0]} positions for {len(volume.hu)} slices")
        return Case(
            id=self.ids[index],
            patient=self.patients[index],
            label=self.labels[index],
            volume=volume,
            positions_mm=positions.whole(),
            tags=self.tags(index),
            series_digest=self.series_digests[index],
            flags=tuple(group.text("flags").split()),
            synthetic=self.synthetic[index],
        )

    def tags(self, index: int) -> dict[str, str | float]:
        """The technical facts about a case."""
        tags = self._groups[index].group("tags").attributes()
        return {name: value if isinstance(value, str) else float(value) for name, value in tags.items()}

    def _rejections(self, root: HDF5Group) -> list[Rejection]:
        table = root.array("rejections", _REJECTION, 1)
        if table.shape[0] > MAX_CASES * 10:
            raise FormatError(f"{self._name}: the table of rejections is malformed")
        try:
            return [Rejection(row[0].decode(), int(row[1]), row[2].decode(), int(row[3])) for row in table.whole()]
        except UnicodeDecodeError:
            raise FormatError(f"{self._name}: the table of rejections is malformed") from None

    def _label(self, group: HDF5Group) -> Diagnosis | None:
        text = group.text("label")
        try:
            return Diagnosis.parse(text) if text else None
        except FormatError as error:
            raise group.error(error.message) from None

    def _synthetic(self, group: HDF5Group) -> Synthetic | None:
        model, kind, source = (group.text(f"synthetic_{part}", "") for part in ("model", "kind", "source"))
        if any((model, kind, source)) and not all((model, kind, source)):
            raise group.error("a synthetic case that does not say what made it of what")
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
