"""What can be seen in a volume that its header does not say: contrast medium, lungs, how much of the chest.

These are facts for the site to check its data by, and flags where something looks wrong; nothing is rejected
for them. The thresholds were set on 100 slices of 54 patients whose contrast is known (TCGA-LUAD): of these,
40 of 50 with contrast were found likely and 38 of 50 without unlikely, 6 were judged wrongly, the others left open.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ucadi.ct.volume import AIR_HU, Volume

TISSUE_HU = (0, 400)
CONTRAST_UNLIKELY_HU = 54
CONTRAST_LIKELY_HU = 64
"""Contrast raises the median of the central tissue, 0 to 400 HU, from about 45 to about 110."""

THIN_HU = (AIR_HU + 1, -500)
SOFT_HU = (-200, 200)
MIN_THIN = 0.02
PEAK_HU = 16
"""In Hounsfield units a chest has air and lungs below -500, at least a fiftieth of its voxels beside padding, and the
commonest value of the rest, in bins of 16 HU, is that of fat, muscle or vessels."""

LUNG_HU = (-970, -400)
MIN_LUNG_ML = 1000
MIN_EXTENT_MM = 150
MAX_CUT_AREA = 0.2
"""Largest area of the lungs in the first or last slice, as a share of the largest in any."""


def observe(volume: Volume, tags: dict[str, str | float]) -> tuple[dict[str, str | float], set[str]]:
    """Facts and flags about a canonical volume with the technical `tags` of its header."""
    tissue = central_tissue_hu(volume)
    contrast = contrast_estimate(tissue)
    areas, body = lung_and_body_mm2(volume)
    slice_mm = volume.spacing_mm[0]
    lung_ml = float(areas.sum() * slice_mm / 1000)
    extent = slice_mm * len(volume.hu)
    facts: dict[str, str | float] = {
        "contrast_estimate": contrast,
        "extent_mm": round(extent, 1),
        "lung_fraction": round(float(areas.sum() / max(1.0, areas.sum() + body.sum())), 3),
        "lung_ml": round(lung_ml, 0),
        "tissue_hu": round(tissue, 1),
    }
    agent = tags.get("ContrastBolusAgent")
    cut = MAX_CUT_AREA * areas.max()
    flags = {
        "contrast-disagrees": (agent, contrast) in {("named", "unlikely"), ("none", "likely")},
        "little-lung": lung_ml < MIN_LUNG_ML,
        "lung-cut-off-feet": areas[0] > cut,
        "lung-cut-off-head": areas[-1] > cut,
        "short-extent": extent < MIN_EXTENT_MM,
        "units-doubtful": not has_hounsfield_peaks(volume),
    }
    return facts, {name for name, applies in flags.items() if applies}


def central_tissue_hu(volume: Volume) -> float:
    """Median HU of the tissue in the central half of the rows and columns; 0 if there is none."""
    _, rows, columns = volume.hu.shape
    centre = volume.hu[:, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    tissue = centre[(centre > TISSUE_HU[0]) & (centre < TISSUE_HU[1])]
    return float(np.median(tissue)) if tissue.size else 0.0


def contrast_estimate(tissue_hu: float) -> str:
    """`likely`, `unlikely` or `unclear`: whether contrast medium was given, by `central_tissue_hu`."""
    if tissue_hu >= CONTRAST_LIKELY_HU:
        return "likely"
    return "unlikely" if tissue_hu <= CONTRAST_UNLIKELY_HU else "unclear"


def has_hounsfield_peaks(volume: Volume) -> bool:
    """Whether air and soft tissue are where they are in Hounsfield units; a wrong rescale moves or spreads them."""
    counts = np.bincount((volume.hu.ravel() - AIR_HU).astype(np.intp), minlength=4096)
    counts[0] = 0  # padding, and what was clipped
    thin = counts[THIN_HU[0] - AIR_HU : THIN_HU[1] - AIR_HU].sum()
    dense = counts[THIN_HU[1] - AIR_HU :]
    bins = dense[: len(dense) // PEAK_HU * PEAK_HU].reshape(-1, PEAK_HU).sum(axis=1)
    peak = THIN_HU[1] + PEAK_HU * int(bins.argmax())
    return bool(thin >= MIN_THIN * max(1, counts.sum()) and SOFT_HU[0] <= peak <= SOFT_HU[1])


Areas = npt.NDArray[np.float64]


def lung_and_body_mm2(volume: Volume) -> tuple[Areas, Areas]:
    """Areas of aerated lung and of the body's tissue in each slice, each float64 (slices,)."""
    body = body_mask(volume)
    lung = lung_mask(volume, body)
    _, row_mm, column_mm = volume.spacing_mm
    return lung.sum(axis=(1, 2)) * row_mm * column_mm, body.sum(axis=(1, 2)) * row_mm * column_mm


def lung_mask(volume: Volume, body: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Aerated lung: what is as thin as lung and lies within the body.

    Within is what has the body on at least three of its four sides in the slice: a narrow field of view may cut
    the chest wall, and the table is no part of the body.
    """
    sides = np.zeros(body.shape, np.uint8)
    for axis in (1, 2):
        sides += np.logical_or.accumulate(body, axis)
        sides += np.flip(np.logical_or.accumulate(np.flip(body, axis), axis), axis)
    lung: npt.NDArray[np.bool_] = (sides >= 3) & (volume.hu > LUNG_HU[0]) & (volume.hu < LUNG_HU[1])
    return lung


def body_mask(volume: Volume) -> npt.NDArray[np.bool_]:
    """The tissue of the body, its lungs not included: the largest connected part of what is denser than lung."""
    parts, count = ndimage.label(volume.hu >= LUNG_HU[1])
    if count == 0:
        return np.zeros(volume.hu.shape, bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    mask: npt.NDArray[np.bool_] = parts == sizes.argmax()
    return mask


def midline_mm(volume: Volume) -> float:
    """Where the patient's right ends and the left begins, by the first patient coordinate: the middle of the body.

    The middle of the volume if no body is seen.
    """
    places = np.argwhere(body_mask(volume))
    middle = places.mean(axis=0) if len(places) else (np.array(volume.hu.shape) - 1) / 2
    return float((volume.affine @ np.array([*middle, 1.0]))[0])
