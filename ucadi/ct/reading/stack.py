"""Slices that lie somewhere in space, put on one regular grid.

The order and the distance of slices follow from their positions along the normal of the image plane, the
only elements of the header that say where a slice is; thickness, location and numbers are not consulted.

Source: DICOM PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.volume import AIR_HU, Affine, HounsfieldArray

Vector = npt.NDArray[np.float64]

SAME_PLACE_MM = 0.01
"""Slices nearer than this are at the same place."""

SNAP = 0.1
"""A slice within a tenth of the spacing of a grid point lies on it."""

MAX_GAP_SLICES = 3
"""Most neighbouring slices that may be missing, and are interpolated."""

MAX_MISSING = 0.1
"""Largest share of a volume's slices that may be missing."""


@dataclass(frozen=True, eq=False)
class Line:
    """The line along which a series' slices are stacked.

    origin: where the first slice begins, (3,). normal: unit vector (3,) perpendicular to the slices. step:
    (3,) how the slices' beginning moves per mm along the normal; it differs from the normal in a tilted gantry.
    """

    origin: Vector
    normal: Vector
    step: Vector

    @property
    def tilt_degrees(self) -> float:
        """Angle between the stack and the normal of its slices: the gantry's tilt."""
        return math.degrees(math.atan(float(np.linalg.norm(self.step - self.normal))))

    def along(self, positions: Vector) -> Vector:
        """Distance of each position (n, 3) from the origin along the normal, in mm, (n,)."""
        distances: Vector = (positions - self.origin) @ self.normal
        return distances


def stack_line(positions: Vector, across: Vector, down: Vector, pixel_mm: float) -> Line:
    """The line of slices that begin at `positions` (n, 3) in any order, n at least 2.

    Raises RefusedError (INVALID_GEOMETRY) when they do not lie on one, within a pixel.
    """
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    along = positions @ normal
    first, last = positions[along.argmin()], positions[along.argmax()]
    length = (last - first) @ normal
    if length < SAME_PLACE_MM:
        raise RefusedError(Reason.TOO_FEW_SLICES, f"{len(positions)} at one place")
    line = Line(first, normal, (last - first) / length)
    astray = np.linalg.norm(positions - first - np.outer(line.along(positions), line.step), axis=1).max()
    if astray > max(pixel_mm, 0.5):
        raise RefusedError(Reason.INVALID_GEOMETRY, f"a slice lies {astray:.1f} mm beside the others")
    if line.tilt_degrees > 40:
        raise RefusedError(Reason.INVALID_GEOMETRY, f"slices are stacked askew by {line.tilt_degrees:.0f} degrees")
    return line


@dataclass(frozen=True)
class Grid:
    """Regular places for slices, in mm along the normal: `start`, `start + spacing`, ... `count` of them.

    missing: how many places have no slice of their own. irregular: the slices do not lie on any regular grid.
    """

    start: float
    spacing_mm: float
    count: int
    missing: int
    irregular: bool


def regular_grid(along: Vector) -> Grid:
    """The grid of slices at `along` (ascending, in mm, at least 2), gaps included.

    The spacing is the commonest distance, refined over the length of the stack. If the slices do not lie on such a
    grid, they are resampled to one as fine, and are missing where there is room for them: 7 mm between slices of
    4 mm is no gap, but another spacing. Raises RefusedError (GAP) when too much is missing to be interpolated.
    """
    distances = np.diff(along)
    typical = float(np.median(distances))
    length = float(along[-1] - along[0])
    steps = np.rint(distances / typical).astype(int)
    spacing = length / int(steps.sum())  # some distance is the median or more, and so a step
    offsets = np.concatenate([[0], np.cumsum(steps)]) * spacing
    irregular = bool((steps < 1).any() or np.abs(along - along[0] - offsets).max() > SNAP * spacing)
    if irregular:
        steps = np.floor(distances / typical + 2 * SNAP).astype(int)
    missing = int(np.maximum(steps - 1, 0).sum())
    if steps.max() - 1 > MAX_GAP_SLICES:
        raise RefusedError(Reason.GAP, f"{steps.max() - 1} in one place")
    if missing > MAX_MISSING * (len(along) + missing):
        raise RefusedError(Reason.GAP, f"{missing} of {len(along) + missing}")
    count = round(length / typical) + 1 if irregular else int(steps.sum()) + 1
    return Grid(float(along[0]), length / (count - 1), count, missing, irregular)


def fill(grid: Grid, along: Vector, planes: Sequence[HounsfieldArray]) -> HounsfieldArray:
    """Slices at `along` (ascending) on their `regular_grid`, int16 (slice, row, column).

    A slice on a grid point is copied; between slices, HU are interpolated linearly from the true positions.
    """
    hu = np.empty((grid.count, *planes[0].shape), np.int16)
    for index in range(grid.count):
        place = grid.start + index * grid.spacing_mm
        nearest = int(np.abs(along - place).argmin())
        if abs(along[nearest] - place) <= SNAP * grid.spacing_mm:
            hu[index] = planes[nearest]
            continue
        above = int(np.searchsorted(along, place))
        share = (place - along[above - 1]) / (along[above] - along[above - 1])
        hu[index] = np.rint((1 - share) * planes[above - 1] + share * planes[above])
    return hu


def affine(origin: Vector, step: Vector, down_mm: Vector, across_mm: Vector) -> Affine:
    """The affine of (slice, row, column, 1): the first voxel's place and the displacement along each index."""
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([step, down_mm, across_mm, origin])
    return matrix


def shift(plane: HounsfieldArray, rows: float, columns: float) -> HounsfieldArray:
    """The slice moved down by `rows` and right by `columns` pixels, linearly interpolated; air moves in."""
    moved = plane.astype(np.float64)
    for axis, amount in enumerate((rows, columns)):
        whole = math.floor(amount)
        share = amount - whole
        moved = (1 - share) * _roll(moved, whole, axis) + share * _roll(moved, whole + 1, axis)
    shifted: HounsfieldArray = np.rint(moved).astype(np.int16)
    return shifted


def _roll(plane: npt.NDArray[np.float64], pixels: int, axis: int) -> npt.NDArray[np.float64]:
    """The plane moved by whole pixels, with air where nothing was."""
    length = plane.shape[axis]
    moved = np.full_like(plane, AIR_HU)
    pixels = max(-length, min(length, pixels))
    to, source = [slice(None)] * 2, [slice(None)] * 2
    to[axis] = slice(max(pixels, 0), length + min(pixels, 0))
    source[axis] = slice(max(-pixels, 0), length - max(pixels, 0))
    moved[tuple(to)] = plane[tuple(source)]
    return moved
