"""NIfTI in and out: volumes that other tools made, and heatmaps that other tools show.

NIfTI indexes (column, row, slice) and its axes point right, anterior, superior; DICOM's and ours point left,
posterior, superior.

Source: the NIfTI-1 standard, https://nifti.nimh.nih.gov/nifti-1
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel import imageglobals

from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.volume import AIR_HU, Affine, Volume, canonical, clip_hu, resize
from ucadi.files import file_digest

imageglobals.logger.setLevel(logging.CRITICAL)  # what nibabel mends in a header is no news for a terminal

SUFFIXES = (".nii.gz", ".nii")

MAX_VOXELS = 1 << 29
"""Largest image that is read, in voxels: 2048 slices of 512 rows and columns."""

MAX_MM = 1e6
"""What no affine of a CT has, be it a spacing or a place."""

MIN_VOXEL_MM3 = 1e-6
"""A micrometre to each side is no CT's voxel."""

MAX_RATIO = 1100
"""More than deflate can shrink anything (1032)."""

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # left, posterior to right, anterior and back


def read(path: Path, *, size: int | None = None) -> tuple[Volume, str]:
    """A CT from NIfTI in the canonical orientation, clipped to the lung window, and the SHA-256 of its file.

    `size` resizes the slices to (size, size). Raises RefusedError for what is no CT in Hounsfield units.
    """
    try:
        loaded = nibabel.load(path)
        if not isinstance(loaded, nibabel.Nifti1Image):
            raise RefusedError(Reason.UNREADABLE, type(loaded).__name__)
        image: Any = loaded
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 or not 0 < math.prod(shape) <= MAX_VOXELS:
            raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"shape {image.shape}")
        _check_claim(path, image)
        if not (image.header["qform_code"] or image.header["sform_code"]):
            raise RefusedError(Reason.NO_GEOMETRY)
        stored = np.asarray(image.dataobj.get_unscaled()).reshape(shape)
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        digest = file_digest(path)
    except RefusedError:
        raise
    except Exception as error:  # whatever a parser of broken input raises
        raise RefusedError(Reason.UNREADABLE, type(error).__name__) from error
    if stored.dtype.kind not in "iuf":
        raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"voxels are {stored.dtype}")
    if not (np.abs(image.affine) < MAX_MM).all() or not abs(np.linalg.det(image.affine)) > MIN_VOXEL_MM3:
        raise RefusedError(Reason.INVALID_GEOMETRY, "an affine that maps nowhere")
    if not slope > 0 or not math.isfinite(intercept):
        raise RefusedError(Reason.INVALID_RESCALE, f"scl_slope {slope:g}")
    hu = np.empty(shape[::-1], np.int16)
    for index, plane in enumerate(stored.transpose(2, 1, 0)):
        values = plane * np.float64(slope) + intercept
        hu[index] = clip_hu(np.nan_to_num(values, nan=AIR_HU, posinf=AIR_HU, neginf=AIR_HU))
    if hu.min() > -500 or hu.max() < -100:
        raise RefusedError(Reason.NOT_HOUNSFIELD, f"values {hu.min()} to {hu.max()}: air or tissue is missing")
    volume = canonical(Volume(hu, from_nifti(image.affine)))
    return (volume if size is None else resize(volume, size)), digest


def read_mask(path: Path) -> tuple[npt.NDArray[np.bool_], Affine]:
    """Where a mask in NIfTI is not zero, bool (slice, row, column), and its affine. RefusedError for anything else."""
    try:
        image: Any = nibabel.load(path)
        if math.prod(image.shape) > MAX_VOXELS:
            raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"a mask of {image.shape}")
        _check_claim(path, image)
        values = np.asarray(image.dataobj)
        affine = from_nifti(image.affine)
    except RefusedError:
        raise
    except Exception as error:  # as above
        raise RefusedError(Reason.UNREADABLE, type(error).__name__) from error
    if values.ndim != 3 or values.dtype.kind not in "buif" or values.size > MAX_VOXELS:
        raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"a mask of {values.dtype} {values.shape}")
    return values.transpose(2, 1, 0) != 0, affine


def _check_claim(path: Path, image: Any) -> None:
    """Raises RefusedError for a file that could not hold its voxels however well it is compressed, before memory is
    allocated for them."""
    if math.prod(image.shape) * image.get_data_dtype().itemsize > MAX_RATIO * path.stat().st_size:
        raise RefusedError(Reason.UNREADABLE, f"claims {image.shape} in {path.stat().st_size} bytes")


def write(path: Path, array: npt.NDArray[np.generic], affine: Affine) -> None:
    """Writes an array (slice, row, column) with our affine to NIfTI; equal inputs give equal bytes.

    float32, int16 and uint8 are kept; other types become float32.
    """
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.int16), np.dtype(np.uint8)):
        array = array.astype(np.float32)
    image: Any = nibabel.Nifti1Image(array.transpose(2, 1, 0), to_nifti(affine))  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def read_written(path: Path) -> tuple[npt.NDArray[np.float32], Affine]:
    """An array (slice, row, column) that `write` wrote, and its affine."""
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0), from_nifti(image.affine)


def to_nifti(affine: Affine) -> Affine:
    """The affine of (column, row, slice, 1) in NIfTI's coordinates."""
    turned: Affine = _FLIP @ affine[:, [2, 1, 0, 3]]
    return turned


def from_nifti(affine: Affine) -> Affine:
    """The affine of (slice, row, column, 1) in DICOM's coordinates."""
    turned: Affine = (_FLIP @ affine)[:, [2, 1, 0, 3]]
    return turned


def is_nifti(path: Path) -> bool:
    """Whether a file is named as NIfTI is."""
    return path.name.lower().endswith(SUFFIXES)
