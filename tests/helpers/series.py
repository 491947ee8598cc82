"""Synthetic CT series as DICOM files, good ones and odd ones, for the tests of reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

ROWS, COLUMNS = 24, 20
ROW_MM, COLUMN_MM = 1.5, 2.0


def body(slices: int, seed: int = 0) -> npt.NDArray[np.int16]:
    """HU of something that no two voxels' neighbourhoods of which are alike, int16 (slices, 24, 20), -1000 to 400."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 400, (slices, ROWS, COLUMNS)).astype(np.int16)


def slice_dataset(hu: npt.NDArray[np.int16], position: Sequence[float], **elements: Any) -> pydicom.Dataset:
    """One axial CT image: `hu` stored with intercept -1024 as unsigned 16 bits. `elements` replace the defaults by
    keyword; None removes one."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ConvolutionKernel = "B30f"
    dataset.SliceThickness = 5
    dataset.ImagePositionPatient = list(position)
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.PixelSpacing = [ROW_MM, COLUMN_MM]
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    slope = float(elements.get("RescaleSlope") or 1)
    intercept = float(elements.get("RescaleIntercept", -1024) or 0)
    signed = elements.get("PixelRepresentation", 0) == 1
    stored = np.rint((hu.astype(np.float64) - intercept) / slope).astype(np.int16 if signed else np.uint16)
    dataset.PixelData = stored.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def series(slices: int = 12, spacing_mm: float = 2.5, seed: int = 0, **elements: Any) -> list[pydicom.Dataset]:
    """An axial series from the feet up, whose first voxel is at (-20, -15, 100)."""
    return [
        slice_dataset(hu, (-20.0, -15.0, 100.0 + spacing_mm * index), InstanceNumber=index + 1, **elements)
        for index, hu in enumerate(body(slices, seed))
    ]


def save(folder: Path, datasets: Sequence[pydicom.Dataset], names: Sequence[str] | None = None) -> Path:
    """Writes data sets to `folder`, which is made; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.iterdir()))
    for index, dataset in enumerate(datasets):
        name = names[index] if names else f"{start + index:04d}.dcm"
        dataset.save_as(folder / name, enforce_file_format=True)
    return folder
