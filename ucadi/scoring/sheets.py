"""Sheets of translated CTs as PNG bytes: slices before, after, and what changed, both in soft-tissue windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.labels import NOTICE
from ucadi.scoring.plots import as_png, blank_figure, placed_axes

SOFT_TISSUE_HU = (40.0, 500.0)
"""Level and width, wide enough for vessels full of contrast medium."""

CHANGE_HU = 200.0
"""The change that is shown in full colour."""

Pair = tuple[str, NDArray[np.integer], NDArray[np.integer]]
"""What it is, and a slice (row, column) in HU before and after."""


def translation_sheet_png(pairs: Sequence[Pair], title: str = "", columns: int = 2) -> bytes:
    """Each pair as before, after and difference side by side, so many pairs a row; darker blue is fewer HU.

    MismatchError for slices of different shapes, FormatError for none.
    """
    if not pairs:
        raise FormatError("no slices to show")
    for name, before, after in pairs:
        if before.shape != after.shape or before.ndim != 2:
            raise MismatchError(f"{name}: a slice of {before.shape} became {after.shape}")
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    tile, gap, between, caption, top, bottom, right = 1.5, 0.03, 0.25, 0.22, 0.4, 0.3, 0.75  # inches
    width = columns * (3 * (tile + gap) + between) + right
    height = rows * (tile + caption) + top + bottom
    level, window = SOFT_TISSUE_HU
    with blank_figure(width, height, background="black") as figure:
        for number, (name, before, after) in enumerate(pairs):
            row, column = divmod(number, columns)
            x = gap + column * (3 * (tile + gap) + between)
            y = height - top - (row + 1) * (tile + caption) + 0.02
            change = after.astype(np.float64) - before
            for place, plane in enumerate((before, after, change)):
                axes = placed_axes(figure, x + place * (tile + gap), y, tile, tile)
                axes.set_axis_off()
                if place < 2:
                    axes.imshow((plane - level) / window + 0.5, cmap="gray", vmin=0, vmax=1)
                else:
                    colours = axes.imshow(plane, cmap="RdBu_r", vmin=-CHANGE_HU, vmax=CHANGE_HU)
            mean = (
                f"{name}: before, after, difference (mean {change.mean():+.1f} HU, largest {np.abs(change).max():.0f})"
            )
            figure.text(x / width, (y + tile + 0.05) / height, mean, color="0.85", fontsize=6.5, va="bottom")
        bar = placed_axes(figure, width - right + 0.05, bottom, 0.12, height - top - bottom - caption)
        figure.colorbar(colours, cax=bar)
        bar.tick_params(colors="0.85", labelsize=6.5, length=2, width=0.5)
        bar.set_title("HU", color="0.85", fontsize=7)
        figure.text(gap / width, 1 - 0.5 * top / height, title, color="white", fontsize=10, va="center")
        text = f"Synthetic. {NOTICE}"
        figure.text(gap / width, 0.5 * bottom / height, text, color="#ffb000", fontsize=8, va="center")
        return as_png(figure)
