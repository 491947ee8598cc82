"""Values on one grid, a heatmap or a mask, at the voxels of another: of a slice as the scanner made it, for one.

Both grids say by their affines where they lie in the patient, so it does not matter how a slice was turned, flipped,
tilted, cropped or resized on the way to the volume that the values belong to.

Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ucadi.ct.reading.instance import Instance
from ucadi.ct.reading.stack import affine as grid_affine
from ucadi.ct.volume import Affine


def onto_grid(
    values: npt.NDArray[np.generic], affine: Affine, grid: Affine, shape: Sequence[int], *, nearest: bool = False
) -> npt.NDArray[np.float32]:
    """`values` (slice, row, column), which lie by `affine`, at the voxels of a grid of `shape` that lies by `grid`.

    Linear between voxel centres, or with `nearest` the value of the nearest; constant from the outermost centres to
    the edges of their voxels, and zero beyond. float32 of `shape`.
    """
    from scipy import ndimage

    to_values = np.linalg.inv(affine) @ grid
    rows, columns = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    limits = np.array(values.shape)[:, None, None] - 0.5
    source = values.astype(np.float32, copy=False)
    placed = np.zeros(tuple(shape), np.float32)
    for index in range(shape[0]):
        indices = np.tensordot(
            to_values[:3], np.stack([np.full(rows.shape, index), rows, columns, np.ones_like(rows)]), 1
        )
        within = ((indices > -0.5 - _SLACK) & (indices < limits + _SLACK)).all(axis=0)
        if within.any():
            ndimage.map_coordinates(
                source, indices, placed[index], order=0 if nearest else 1, mode="nearest", prefilter=False
            )
            placed[index][~within] = 0
    return placed


def onto_slice(values: npt.NDArray[np.generic], affine: Affine, instance: Instance) -> npt.NDArray[np.float32]:
    """`values` (slice, row, column), which lie by `affine`, at the pixels of an image, float32 (row, column).

    A slice lies within the volume if its middle is not farther than half a slice's distance from it.
    """
    placed: npt.NDArray[np.float32] = onto_grid(values, affine, image_affine(instance), (1, *instance.shape))[0]
    return placed


def image_affine(instance: Instance) -> Affine:
    """The affine of (0, row, column, 1) of an image."""
    across, down = np.array(instance.across), np.array(instance.down)
    row_mm, column_mm = instance.spacing_mm
    return grid_affine(np.array(instance.position), np.cross(across, down), down * row_mm, across * column_mm)


def edges(instance: Instance) -> tuple[str, str, str, str]:
    """Which side of the patient lies at the image's left, right, top and bottom edge: a letter of R, L, A, P, F, H."""
    left, right = _ends(np.array(instance.across))
    top, bottom = _ends(np.array(instance.down))
    return left, right, top, bottom


def _ends(direction: npt.NDArray[np.float64]) -> tuple[str, str]:
    """The sides of the patient that a direction comes from and goes to."""
    axis = int(np.abs(direction).argmax())
    low, high = ("R", "A", "F")[axis], ("L", "P", "H")[axis]
    return (low, high) if direction[axis] > 0 else (high, low)


_SLACK = 1e-3
"""In voxels: positions are text in the header and rounded."""
