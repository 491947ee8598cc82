"""A CT volume in Hounsfield units with its place in the patient, and how it is clipped, resized and turned.

Arrays are indexed (slice, row, column). The canonical orientation, in which datasets hold volumes, is the
radiological view from the feet: slices run feet to head, rows anterior to posterior, columns from the
patient's right to left; that is, each index grows along one axis of the DICOM patient coordinate system
(LPS: left, posterior, superior).

Resizing is exact integer arithmetic: the weights are multiples of 2^-18, so every partial sum is
representable in a float64 and the result has the same bits on every machine, with any number of threads.

Source: DICOM PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation), C.7.6.1.1.1 (patient axes).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy import sparse

HounsfieldArray = npt.NDArray[np.int16]
Affine = npt.NDArray[np.float64]

AIR_HU = -1024
"""What lies outside the patient: padding is set to it, and nothing is stored below it."""

WINDOW_HU = (-1200, 600)
"""The lung window of the paper (Methods, data pre-processing)."""

WEIGHT_BITS = 18
"""Weights of `resize` are multiples of 2^-18: 15 bits of HU and twice 18 of weight fit the 53 of a float64."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Hounsfield units on a regular grid, and where the grid lies.

    hu: int16 (slice, row, column). affine: float64 (4, 4), maps (slice, row, column, 1) at voxel centres to
    DICOM patient coordinates (left, posterior, superior, 1) in mm.
    """

    hu: HounsfieldArray
    affine: Affine

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16:
            raise ValueError(f"a volume is int16 (slice, row, column), not {self.hu.dtype} {self.hu.shape}")
        if self.affine.shape != (4, 4) or self.affine.dtype != np.float64:
            raise ValueError(f"an affine is float64 (4, 4), not {self.affine.dtype} {self.affine.shape}")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring slices, rows and columns in mm."""
        slice_mm, row_mm, column_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_mm), float(row_mm), float(column_mm)

    @property
    def positions_mm(self) -> npt.NDArray[np.float64]:
        """Where each slice's first voxel lies along the slice axis, in mm; float64 (slices,)."""
        step = self.affine[:3, 0]
        length = np.linalg.norm(step)
        positions: npt.NDArray[np.float64] = self.affine[:3, 3] @ step / length + length * np.arange(len(self.hu))
        return positions


def clip(volume: Volume, window: tuple[int, int] = WINDOW_HU) -> Volume:
    """The volume with nothing below air and nothing outside `window`."""
    return replace(volume, hu=clip_hu(volume.hu, window))


def clip_hu(hu: npt.NDArray[np.generic], window: tuple[int, int] = WINDOW_HU) -> HounsfieldArray:
    """Any array of HU, clipped to air and `window` and rounded to int16."""
    low, high = max(AIR_HU, window[0]), window[1]
    if hu.dtype.kind == "f":
        hu = np.rint(hu)
    clipped: HounsfieldArray = np.clip(hu, low, high).astype(np.int16)
    return clipped


def resize(volume: Volume, rows: int, columns: int | None = None) -> Volume:
    """Resizes every slice to (rows, columns) with anti-aliased linear (triangle filter) interpolation.

    The field of view stays the same: pixels are squares around their centres, so the first centre moves
    (half-pixel convention), and the affine with it. The slice axis is left alone.
    """
    columns = rows if columns is None else columns
    hu = np.empty((len(volume.hu), rows, columns), np.int16)
    for index, plane in enumerate(volume.hu):
        hu[index] = resize_slice(plane, rows, columns)
    return Volume(hu, resized_affine(volume.affine, volume.hu.shape[1:], (rows, columns)))


def resize_slice(plane: HounsfieldArray, rows: int, columns: int) -> HounsfieldArray:
    """One slice, int16 (row, column), resized to (rows, columns); see `resize`."""
    if plane.shape == (rows, columns):
        return plane
    halfway = _band(plane.shape[0], rows) @ plane.astype(np.float64)
    exact = _band(plane.shape[1], columns) @ np.ascontiguousarray(halfway.T)
    resized: HounsfieldArray = np.rint(exact.T).astype(np.int16)
    return resized


def resized_affine(affine: Affine, old: tuple[int, ...], new: tuple[int, ...]) -> Affine:
    """The affine of a grid whose slices of `old` (rows, columns) are resized to `new`."""
    to_old = np.eye(4)
    for axis, (before, after) in enumerate(zip(old, new, strict=True), start=1):
        scale = before / after
        to_old[axis, axis] = scale
        to_old[axis, 3] = 0.5 * scale - 0.5
    moved: Affine = affine @ to_old
    return moved


@functools.lru_cache(maxsize=32)
def _band(source: int, target: int) -> sparse.csr_array:
    """The triangle filter that resizes an axis: a sparse matrix (target, source) with a few weights in each row.

    The filter is as wide as the larger of the two grids' steps: shrinking averages, enlarging interpolates.
    The weights of a row are multiples of 2^-18 and their sum is exactly 1. Sparse, and so without BLAS, whose
    threads cost more than they bring on planes of this size, tenfold on a busy machine.
    """
    from scipy import sparse  # a coordinator's machine has none, and reads this module on the way to others

    scale = source / target
    width = max(scale, 1.0)
    centres = scale * (np.arange(target) + 0.5)
    taps = np.floor(centres - width).astype(np.intp) + np.arange(math.ceil(2 * width) + 1)[:, np.newaxis]
    weights = np.maximum(0.0, 1.0 - np.abs(taps + 0.5 - centres) / width)
    weights[(taps < 0) | (taps >= source)] = 0.0
    weights /= weights.sum(axis=0)
    units = np.rint(weights * 2**WEIGHT_BITS)
    units[units.argmax(axis=0), np.arange(target)] += 2**WEIGHT_BITS - units.sum(axis=0)
    used = units > 0
    rows = np.broadcast_to(np.arange(target), taps.shape)[used]
    return sparse.csr_array((units[used] / 2**WEIGHT_BITS, (rows, taps[used])), shape=(target, source))


def canonical(volume: Volume) -> Volume:
    """The same voxels with axes swapped and reversed until slices run feet to head, rows to posterior, columns to left.

    Axes are matched to the nearest patient axes; what is oblique stays oblique, in the affine.
    """
    directions = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    axes = _nearest_axes(directions)
    hu = volume.hu.transpose(axes)
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1.0
    for new, old in enumerate(axes):
        patient_axis = 2 - new  # slices along superior (2), rows along posterior (1), columns along left (0)
        forward = directions[patient_axis, old] > 0
        to_old[old, new] = 1.0 if forward else -1.0
        if not forward:
            to_old[old, 3] = volume.hu.shape[old] - 1
            hu = np.flip(hu, axis=new)
    return Volume(np.ascontiguousarray(hu), volume.affine @ to_old)


def _nearest_axes(directions: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """Which array axis lies nearest to superior, posterior and left: the closest pair is matched first."""
    closeness = np.abs(directions)  # (patient axis, array axis)
    matched = [0, 0, 0]
    for _ in range(3):
        patient_axis, axis = np.unravel_index(closeness.argmax(), closeness.shape)
        matched[2 - int(patient_axis)] = int(axis)
        closeness[patient_axis, :] = -1.0
        closeness[:, axis] = -1.0
    return matched[0], matched[1], matched[2]
