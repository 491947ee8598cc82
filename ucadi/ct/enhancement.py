"""What contrast medium does to a CT, in figures that need no segmentation: soft tissue, vessels, the aorta; and edges.

All of it is measured in HU, on canonical volumes (slice, row, column). Central means the middle half of the rows and
of the columns, where heart and great vessels are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ucadi.ct.volume import HounsfieldArray, Volume

ENHANCED_HU = (120, 350)
"""Blood with contrast medium, and of what has none mostly bone."""

SOFT_TISSUE_HU = (-200, 400)

AORTA_MM = (14.0, 42.0)
"""Diameters of the descending aorta, from slender to aneurysmal."""

LEFT_OF_MIDDLE_MM = (2.0, 55.0)
BEHIND_MIDDLE_MM = (5.0, 90.0)
"""Where the descending aorta is, as seen from the middle of the body."""

ROUND = 0.62
"""Least share of the circle about it that a cut through the aorta fills."""

STRAY_MM = 14.0
"""Largest distance of the aorta in one slice from where it is in most."""

BONE_HU = 400
"""Mean from which a bright region is no vessel."""

LEAST_SLICES = 3
"""A volume of more slices shows the aorta in that many at least."""


def central(hu: HounsfieldArray) -> HounsfieldArray:
    """The middle half of the rows and columns of slices (slice, row, column)."""
    rows, columns = hu.shape[1] // 4, hu.shape[2] // 4
    return hu[:, rows : hu.shape[1] - rows, columns : hu.shape[2] - columns]


def enhanced_share(hu: HounsfieldArray) -> npt.NDArray[np.float64]:
    """The share of each slice's central voxels with 120 to 350 HU, float64 (slices,)."""
    low, high = ENHANCED_HU
    inside = central(hu)
    share: npt.NDArray[np.float64] = ((inside >= low) & (inside <= high)).mean(axis=(1, 2))
    return share


def soft_tissue_counts(hu: HounsfieldArray) -> npt.NDArray[np.int64]:
    """How many central voxels have each HU from -200 to 400, int64 (601,)."""
    low, high = SOFT_TISSUE_HU
    inside = central(hu)
    kept = inside[(inside >= low) & (inside <= high)].astype(np.int64) - low
    return np.bincount(kept, minlength=high - low + 1)


def edges(hu: HounsfieldArray) -> npt.NDArray[np.float32]:
    """How steeply HU change within a slice, per pixel, float32 (slice, row, column)."""
    down, across = np.gradient(hu.astype(np.float32), axis=(1, 2))
    steepness: npt.NDArray[np.float32] = np.hypot(down, across)
    return steepness


def slice_change(hu: HounsfieldArray) -> float:
    """Mean absolute difference in HU of soft tissue between neighbouring slices; 0 for a single slice."""
    low, high = SOFT_TISSUE_HU
    if len(hu) < 2:
        return 0.0
    lower, upper = hu[:-1].astype(np.int32), hu[1:].astype(np.int32)
    soft = (lower > low) & (lower < high) & (upper > low) & (upper < high)
    return float(np.abs(upper - lower)[soft].mean()) if soft.any() else 0.0


def descending_aorta(volume: Volume) -> npt.NDArray[np.bool_]:
    """Where the descending aorta is in a canonical volume with contrast medium, bool (slice, row, column).

    In each slice: a round, even region as bright as blood with contrast medium, to the left of the body's middle
    and behind it; of the slices, those where it is near its usual place. The rim is left out. It is
    empty where there is no such thing, as in a scan without contrast medium or of few pixels.
    """
    _, row_mm, column_mm = volume.spacing_mm
    mask = np.zeros(volume.hu.shape, bool)
    if max(row_mm, column_mm) > AORTA_MM[0] / 2:
        return mask
    found = [_round_region(plane, row_mm, column_mm) for plane in volume.hu]
    places = np.array([place for place, _ in filter(None, found)])
    if len(places) == 0:
        return mask
    usual = np.median(places, axis=0)
    for index, region in enumerate(found):
        if region is not None and np.hypot(*(region[0] - usual)) <= STRAY_MM:
            mask[index] = region[1]
    if mask.any(axis=(1, 2)).sum() < min(LEAST_SLICES, len(mask)):
        mask[:] = False
    return mask


def _round_region(
    plane: HounsfieldArray, row_mm: float, column_mm: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]] | None:
    """The likeliest cut through the descending aorta: its centre in mm from the body's middle, and where it is."""
    from scipy import ndimage

    body = np.argwhere(plane > SOFT_TISSUE_HU[0])
    if len(body) == 0:
        return None
    middle = (body.min(axis=0) + body.max(axis=0)) / 2
    low, high = ENHANCED_HU
    labels, _ = ndimage.label((plane >= low) & (plane <= high + 150))
    # vessels that touch bone or each other come apart where they are narrow
    cross = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(ndimage.binary_opening(labels > 0, cross))
    best, least = None, np.inf
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[window] == number
        height, width = region.shape[0] * row_mm, region.shape[1] * column_mm
        if not (AORTA_MM[0] <= min(height, width) and max(height, width) <= AORTA_MM[1]):
            continue
        if region.sum() * row_mm * column_mm < ROUND * np.pi * (max(height, width) / 2) ** 2:
            continue
        centre = np.add(ndimage.center_of_mass(region), (window[0].start, window[1].start))
        behind, left = (centre - middle) * (row_mm, column_mm)
        within = LEFT_OF_MIDDLE_MM[0] <= left <= LEFT_OF_MIDDLE_MM[1]
        if not (within and BEHIND_MIDDLE_MM[0] <= behind <= BEHIND_MIDDLE_MM[1]):
            continue
        core = ndimage.binary_erosion(region, cross)
        if not core.any() or plane[window][core].mean() >= BONE_HU:
            continue
        uneven = float(plane[window][core].std())
        if uneven < least:
            whole = np.zeros(plane.shape, bool)
            whole[window] = core
            best, least = (np.array([behind, left]), whole), uneven
    return best
