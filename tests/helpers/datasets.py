"""Small datasets for tests of training: chests of noise with a dense square, of a size for each diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ucadi.ct.volume import Volume
from ucadi.formats import dataset
from ucadi.formats.dataset import Case, Rejection
from ucadi.labels import Diagnosis

LABELS = tuple(Diagnosis)

SIZE = 16


def write_dataset(path: Path, labels: Sequence[Diagnosis | None], *, size: int = 16, first: int = 0) -> Path:
    """A dataset of one case for each label, numbered from `first`, with 20 slices of `size` x `size`."""
    cases = [make_case(number, label, size) for number, label in enumerate(labels, start=first)]
    dataset.write(path, cases, [], size=size)
    return path


def make_case(number: int, label: Diagnosis | None = None, size: int = 16) -> Case:
    """A case; what is in it follows from its number and label."""
    rng = np.random.default_rng(number)
    hu = rng.normal(-700, 60, (20, size, size))
    side = size * (label or 0) // 4  # the healthy have none
    row, column = rng.integers(0, size - side, 2)
    hu[:, row : row + side, column : column + side] += 500
    volume = Volume(hu.astype(np.int16), np.diag([2.5, 3.0, 3.0, 1.0])[[2, 1, 0, 3]])
    return Case(
        id=f"{number:016x}",
        patient=f"{number:016x}",
        label=label,
        volume=volume,
        positions_mm=volume.positions_mm,
        tags={},
        series_digest="ab" * 32,
        flags=(),
    )


def noise_case(number: int, label: Diagnosis | None = Diagnosis.COVID, slices: int = 5) -> Case:
    """A case with all that one may have; two of each patient."""
    hu = np.random.default_rng(number).integers(-1024, 600, (slices, SIZE, SIZE)).astype(np.int16)
    affine = np.diag([2.5, 3.0, 3.0, 1.0])[[2, 1, 0, 3]]
    volume = Volume(hu, affine)
    return Case(
        id=f"{number:016x}",
        patient=f"{number // 2:016x}",
        label=label,
        volume=volume,
        positions_mm=volume.positions_mm,
        tags={"Manufacturer": "ge", "KVP": 120.0},
        series_digest="ab" * 32,
        flags=("interpolated", "lossy"),
    )


REJECTIONS = [Rejection(f"{9:016x}", 0, "gap", 50), Rejection(f"{3:016x}", 2, "localizer", 1)]
