"""A scan at a glance: a coronal cut and axial slices from head to feet in one strip, as JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from ucadi.ct.volume import HounsfieldArray, Volume, resize_slice

SIDE = 128
"""Rows and columns of a tile."""

AXIAL = 7

WINDOW_HU = (-1350, 150)
"""In which radiologists read lungs."""


def montage_jpeg(volume: Volume) -> bytes:
    """A strip of 8 tiles of 128 x 128 from a canonical volume, in the lung window.

    First the coronal cut through the middle, head up, in true proportions; then axial slices, seen from the feet.
    Equal volumes give equal bytes with one release of Pillow.
    """
    slices = len(volume.hu)
    chosen = [int((i + 0.5) * slices / AXIAL) for i in range(AXIAL)][::-1]
    tiles = [_coronal(volume), *(resize_slice(volume.hu[index], SIDE, SIDE) for index in chosen)]
    low, high = WINDOW_HU
    grey = (np.clip(np.hstack(tiles).astype(np.float64), low, high) - low) * (255 / (high - low))
    data = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(data, "JPEG", quality=70)
    return data.getvalue()


def _coronal(volume: Volume) -> HounsfieldArray:
    """The middle coronal plane, int16 (128, 128): as wide as the tile, or as high if it is longer than wide."""
    slices, rows, columns = volume.hu.shape
    slice_mm, _, column_mm = volume.spacing_mm
    ratio = slices * slice_mm / (columns * column_mm)
    height, width = (SIDE, SIDE / ratio) if ratio > 1 else (SIDE * ratio, SIDE)
    plane = resize_slice(volume.hu[::-1, rows // 2], max(1, round(height)), max(1, round(width)))
    tile: npt.NDArray[np.int16] = np.full((SIDE, SIDE), np.int16(WINDOW_HU[0]))
    top, left = (SIDE - plane.shape[0]) // 2, (SIDE - plane.shape[1]) // 2
    tile[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return tile
