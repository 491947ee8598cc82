"""Makes two datasets of single CT slices whose contrast medium is known: contrast.h5 and noncontrast.h5.

Usage: slices_to_datasets.py SLICES FOLDER

SLICES holds DICOM files and labels.csv with the columns file, contrast (1 or 0). A scan of one slice is no scan to
`ucadi preprocess`; here each becomes a case, unlabelled, of 128 x 128 pixels.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
import pydicom

from ucadi.ct.reading.dicom import PixelReader, read_headers
from ucadi.ct.volume import Volume, clip_hu, resize_slice, resized_affine
from ucadi.formats import dataset
from ucadi.formats.dataset import Case

SIZE = 128


def read_case(path: Path, reader: PixelReader) -> Case:
    (instance,) = read_headers(path)
    pixels = reader.read(instance)
    row_mm, column_mm = instance.spacing_mm
    affine = np.diag([1.0, row_mm, column_mm, 1.0])[[2, 1, 0, 3]]  # (slice, row, column) to left, posterior, superior
    affine = resized_affine(affine, pixels.hu.shape, (SIZE, SIZE))
    volume = Volume(resize_slice(clip_hu(pixels.hu), SIZE, SIZE)[np.newaxis], affine)
    patient = str(pydicom.dcmread(path, stop_before_pixels=True).PatientID)
    return Case(
        id=hashlib.sha256(path.name.encode()).hexdigest()[:16],
        patient=hashlib.sha256(patient.encode()).hexdigest()[:16],
        label=None,
        volume=volume,
        positions_mm=volume.positions_mm,
        tags={},
        series_digest=pixels.file_digest.hex(),
        flags=(),
    )


def main(slices: Path, folder: Path) -> None:
    reader, cases = PixelReader(), {"1": [], "0": []}
    text = (slices / "labels.csv").read_bytes().decode().replace("\r", "")
    for row in csv.DictReader(text.splitlines()):
        cases[row["contrast"]].append(read_case(slices / row["file"], reader))
    for contrast, name in (("1", "contrast"), ("0", "noncontrast")):
        dataset.write(folder / f"{name}.h5", sorted(cases[contrast], key=lambda case: case.id), [], size=SIZE)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
