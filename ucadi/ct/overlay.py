"""A heatmap over one CT slice as a colour picture, with all that must be seen on it written into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ucadi.ct.montage import WINDOW_HU
from ucadi.ct.sampling import LUNG_HU
from ucadi.ct.volume import HounsfieldArray

LEAST_SIDE = 512
"""Pixels of the longer side of a picture at least: smaller images are enlarged, so that text can be read."""

BAR_MM = 50
"""Length of the bar that shows the scale of the image."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Style:
    """What the pictures of a series share.

    colours: uint8 (256, 4), red, green, blue and opacity of heat 0 to 1. title: lines at the top. notice: a line at the
    foot that each picture must bear.
    """

    colours: Picture
    title: Sequence[str]
    notice: str


def overlay(
    hu: HounsfieldArray,
    heat: npt.NDArray[np.float32],
    spacing_mm: tuple[float, float],
    edges: tuple[str, str, str, str],
    style: Style,
    caption: str,
) -> tuple[Picture, float]:
    """The picture, uint8 (rows, columns, 3) with square pixels, and the side of a pixel in mm.

    hu, heat: (row, column), heat in [0, 1]; spacing_mm: between rows and between columns. edges: letters of the
    patient's sides at the left, right, top and bottom edge, of which R and L are drawn. The scale of the heat is at
    the right, a bar of 5 cm at the lower right. Equal inputs give equal bytes with one release of Pillow.
    """
    height_mm, width_mm = hu.shape[0] * spacing_mm[0], hu.shape[1] * spacing_mm[1]
    side_mm = max(height_mm, width_mm) / max(LEAST_SIDE, *hu.shape)
    size = round(width_mm / side_mm), round(height_mm / side_mm)
    low, high = WINDOW_HU
    grey = (np.clip(hu.astype(np.float32), low, high) - low) * (255 / (high - low))
    picture = Image.fromarray(_coloured(_resized(grey, size), _resized(heat, size), style.colours))
    draw = ImageDraw.Draw(picture)
    unit = max(size) // 40
    _write(draw, (unit // 2, unit // 2), "\n".join([*style.title, caption]), unit * 3 // 4, "la")
    _write(draw, (size[0] // 2, size[1] - unit // 2), style.notice, unit * 4 // 5, "md", fill=_AMBER)
    for letter, place, anchor in zip(edges, _places(size, unit), ("lm", "rm", "ma", "md"), strict=True):
        if letter in "RL":
            _write(draw, place, letter, unit * 3 // 2, anchor)
    _draw_scale(draw, size, unit, style.colours)
    length = round(BAR_MM / side_mm)
    right, foot = size[0] - unit, size[1] - 2 * unit
    draw.line((right - length, foot, right, foot), _WHITE, max(1, unit // 6))
    _write(draw, (right, foot - unit // 4), f"{BAR_MM // 10} cm", unit * 3 // 4, "rd")
    return np.asarray(picture), side_mm


_WHITE, _AMBER, _BLACK = (235, 235, 235), (255, 176, 0), (0, 0, 0)


def _resized(plane: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    if plane.shape == (size[1], size[0]):
        return plane
    image = Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def _coloured(grey: npt.NDArray[np.float32], heat: npt.NDArray[np.float32], colours: Picture) -> Picture:
    chosen = colours[np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)].astype(np.float32)  # (rows, columns, 4)
    opacity = chosen[..., 3:] / 255
    mixed: Picture = np.rint((1 - opacity) * grey[..., None] + opacity * chosen[..., :3]).astype(np.uint8)
    return mixed


def _places(size: tuple[int, int], unit: int) -> tuple[tuple[int, int], ...]:
    """Where the letters of the left, right, top and bottom edge go, clear of the other writing."""
    width, height = size
    return (
        (unit // 2, height // 2),
        (width - 4 * unit, height // 2),
        (width // 2, 5 * unit),
        (width // 2, height - 2 * unit),
    )


def _draw_scale(draw: ImageDraw.ImageDraw, size: tuple[int, int], unit: int, colours: Picture) -> None:
    """The colours of heat on the grey of lung, from 0 at its foot to 1."""
    left, top, length = size[0] - 3 * unit // 2, size[1] // 4, size[1] // 2
    low, high = WINDOW_HU
    grey = (LUNG_HU - low) * 255 / (high - low)
    column = _coloured(
        np.full((length, 1), grey, np.float32), np.linspace(1, 0, length, dtype=np.float32)[:, None], colours
    )
    for row, (colour,) in enumerate(column.tolist()):
        draw.line((left, top + row, left + unit, top + row), tuple(colour))
    draw.rectangle((left - 1, top - 1, left + unit + 1, top + length), outline=_WHITE)
    for value in (0, 0.5, 1):
        _write(draw, (left - unit // 4, round(top + (1 - value) * length)), f"{value:g}", unit * 3 // 4, "rm")


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    anchor: str,
    fill: tuple[int, int, int] = _WHITE,
) -> None:
    """Text with a black edge, legible on bone and on air."""
    font = ImageFont.load_default(size)
    draw.text(place, text, fill, font, anchor, stroke_width=max(1, size // 8), stroke_fill=_BLACK)
