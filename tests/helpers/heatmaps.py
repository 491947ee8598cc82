"""DICOM objects of a heatmap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.heatmap_objects import write
from ucadi.ct.overlay import Style
from ucadi.ct.reading.scan import read_scan, source_series
from ucadi.ct.statement import HeatmapDescription
from ucadi.labels import NOTICE
from ucadi.scoring.plots import overlay_colours

SAYS = HeatmapDescription("covid", 0.5, "grad-cam", "ab" * 32, "1.0", ("layer=last",))


def style() -> Style:
    return Style(overlay_colours(), SAYS.title, NOTICE)


def objects_of(
    place: Path, folder: Path, says: HeatmapDescription = SAYS
) -> tuple[Path, NDArray[np.float32], NDArray[np.float64]]:
    """The objects of a heatmap with one hot spot, about the scan at a place."""
    scan = read_scan(place, size=24, min_slices=10)
    z, y, x = np.indices(scan.volume.hu.shape)
    slices = len(scan.volume.hu)
    heatmap = np.exp(-((z - slices / 3) ** 2) / 20 - ((y - 8) ** 2 + (x - 15) ** 2) / 10).astype(np.float32)
    folder.mkdir()
    with source_series(place, scan.digest) as instances:
        write(folder, instances, heatmap, scan.volume.affine, says, style())
    return folder, heatmap, scan.volume.affine
