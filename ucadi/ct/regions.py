"""Regions of a heatmap: what stands out, as a list for a report, with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ucadi.ct.volume import Affine


@dataclass(frozen=True)
class Region:
    """A connected region. `slice` counts from 1 at the feet, where the region is largest; `position_mm` is the
    centre of its heat in DICOM patient coordinates (left, posterior, superior); `side` is the patient's."""

    slice: int
    position_mm: tuple[float, float, float]
    volume_ml: float
    peak: float
    side: Literal["left", "right"]

    def __str__(self) -> str:
        x, y, z = self.position_mm
        return (
            f"{self.side:<5}  slice {self.slice:>3}  {self.volume_ml:7.1f} ml  peak {self.peak:.2f}  "
            f"at ({x:.0f}, {y:.0f}, {z:.0f}) mm"
        )


def regions(
    heatmap: npt.NDArray[np.float32],
    affine: Affine,
    *,
    level: float = 0.5,
    least_ml: float = 1.0,
    middle_mm: float | None = None,
) -> list[Region]:
    """The connected regions (26 neighbours) of a heatmap (slice, row, column) in [0, 1] at or above `level` of its
    maximum, the largest first; those below `least_ml` are left out. `middle_mm` is where the patient's left side
    begins, by the first patient coordinate; None for the middle of the volume."""
    from scipy import ndimage

    top = float(heatmap.max(initial=0.0))
    if top <= 0:
        return []
    labels, count = ndimage.label(heatmap >= level * top, structure=np.ones((3, 3, 3)))
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    if middle_mm is None:
        middle_mm = float((affine @ np.array([*(np.array(heatmap.shape) - 1) / 2, 1.0]))[0])
    found = []
    for label in range(1, count + 1):
        mask = labels == label
        volume_ml = voxel_ml * int(mask.sum())
        if volume_ml < least_ml:
            continue
        centre = ndimage.center_of_mass(np.where(mask, heatmap, 0))
        x, y, z = (affine @ np.array([*centre, 1.0]))[:3]
        found.append(
            Region(
                slice=int(mask.sum(axis=(1, 2)).argmax()) + 1,
                position_mm=(float(x), float(y), float(z)),
                volume_ml=volume_ml,
                peak=float(heatmap[mask].max()),
                side="left" if x > middle_mm else "right",
            )
        )
    return sorted(found, key=lambda region: -region.volume_ml)
