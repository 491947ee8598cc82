"""Pictures of results as PNG bytes: ROC curves, confusion matrices, and heatmaps over CT slices.

Equal inputs give equal bytes, whatever the user's matplotlib settings: each picture is drawn in
matplotlib's own style on a figure of its own, without pyplot and its global state.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.labels import LABELS, NOTICE
from ucadi.scoring.bootstrap import FALSE_POSITIVE_RATES, Band
from ucadi.scoring.calibration import Calibration
from ucadi.scoring.decision import Benefit
from ucadi.scoring.metrics import auc, checked

Curve = tuple[str, ArrayLike, ArrayLike]
"""A name, labels (cases,) of 0 and 1, and scores (cases,)."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart."""

LUNG_WINDOW_HU = (-600.0, 1500.0)
"""Level and width of the window in which radiologists read lungs."""

LUNG_HU = -850.0
"""Of healthy lung."""

BAR_MM = 50.0
"""Length of the bar in a montage."""


DPI = 150


def roc_png(
    curves: Sequence[Curve],
    title: str = "",
    readers: Sequence[tuple[str, float, float]] = (),
    bands: Mapping[str, Band] | None = None,
) -> bytes:
    """ROC curves with their AUCs and 95 % intervals, as in the paper's Fig. 4.

    `readers` are points to compare with, radiologists for instance: a name, sensitivity and specificity.
    `bands`, by the name of their curve, are shaded.
    Raises what `ucadi.scoring.metrics.auc` raises.
    """
    from sklearn.metrics import roc_curve  # a second to import

    with blank_figure(4.8, 4.9) as figure:
        axes = placed_axes(figure, 0.65, 0.55, 4.0, 4.0)
        axes.plot([0, 1], [0, 1], color="0.75", linewidth=0.8, dashes=(4, 3), zorder=1)
        for (name, labels, scores), colour in zip(curves, _cycle(len(curves)), strict=True):
            truth, s = checked(labels, scores)
            area = auc(truth, s)
            false, true, _ = roc_curve(truth, s, drop_intermediate=False)
            spread = "" if area.low is None else f" [{area.low:.3f}, {area.high:.3f}]"
            axes.plot(false, true, color=colour, linewidth=1.8, label=f"{name}  {area.value:.3f}{spread}", zorder=2)
            if band := (bands or {}).get(name):
                low, high = zip(*band, strict=True)
                axes.fill_between(FALSE_POSITIVE_RATES, low, high, color=colour, alpha=0.13, linewidth=0, zorder=1)
        for (name, sensitivity, specificity), marker in zip(readers, _cycle(len(readers), "osD^vPX*"), strict=True):
            axes.plot(1 - specificity, sensitivity, marker, color="0.35", markersize=5, label=name, zorder=3)
        axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=title)
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        legend = axes.legend(
            loc="lower right", fontsize=7.5, frameon=True, framealpha=0.9, edgecolor="none", title="AUC [95 % interval]"
        )
        legend.get_title().set_fontsize(7.5)
        return as_png(figure)


def reliability_png(curves: Sequence[tuple[str, Calibration]], title: str = "") -> bytes:
    """Observed shares against predicted probabilities; the area of a mark grows with the cases in its bin."""
    with blank_figure(4.8, 4.9) as figure:
        axes = placed_axes(figure, 0.65, 0.55, 4.0, 4.0)
        axes.plot([0, 1], [0, 1], color="0.75", linewidth=0.8, dashes=(4, 3), zorder=1)
        for (name, held), colour in zip(curves, _cycle(len(curves)), strict=True):
            x, y = [b.predicted for b in held.bins], [b.observed for b in held.bins]
            cases = np.array([b.cases for b in held.bins])
            axes.plot(x, y, color=colour, linewidth=1.4, label=f"{name}  Brier {held.brier:.3f}, ECE {held.ece:.3f}")
            axes.scatter(x, y, s=10 + 90 * cases / cases.sum(), color=colour, zorder=2)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", title=title)
        axes.set(xlabel="predicted probability", ylabel="share with COVID-19")
        _finish(axes, "lower right")
        return as_png(figure)


def decision_png(curves: Sequence[tuple[str, Sequence[Benefit]]], title: str = "") -> bytes:
    """Net benefit of models, of calling all positive and of calling none, against the threshold."""
    with blank_figure(5.6, 4.2) as figure:
        axes = placed_axes(figure, 0.75, 0.55, 4.65, 3.25)
        for (name, curve), colour in zip(curves, _cycle(len(curves)), strict=True):
            x = [b.threshold for b in curve]
            axes.plot(x, [b.model for b in curve], color=colour, linewidth=1.6, label=name)
        x, treat_all = [b.threshold for b in curves[0][1]], [b.all for b in curves[0][1]]
        axes.plot(x, treat_all, color="0.6", linewidth=1, label="all positive")
        axes.axhline(0, color="0.3", linewidth=1, dashes=(4, 3), label="none positive")
        top = max(b.model for _, curve in curves for b in curve)
        axes.set(xlim=(0, 1), ylim=(-0.05, 1.1 * max(top, treat_all[0]) + 0.02), title=title)
        axes.set(xlabel="threshold probability", ylabel="net benefit")
        _finish(axes, "upper right")
        return as_png(figure)


def _finish(axes: Axes, corner: Literal["lower right", "upper right"]) -> None:
    axes.grid(color="0.92", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc=corner, fontsize=7.5, framealpha=0.9, edgecolor="none")


def confusion_png(confusion: ArrayLike, labels: Sequence[str] = LABELS, title: str = "") -> bytes:
    """A confusion matrix (classes, classes), truth by rows: counts, and shaded by their share of the row.

    MismatchError if it is not square or there is another number of labels.
    """
    counts = np.asarray(confusion)
    if counts.shape != (len(labels), len(labels)):
        raise MismatchError(f"the confusion matrix is {counts.shape} for {len(labels)} labels")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.8 * len(labels)  # inches
    with blank_figure(side + 1.5, side + 1.0) as figure:
        axes = placed_axes(figure, 1.4, 0.6, side, side)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)  # short of the darkest, for the text's sake
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.6 else "0.15"
            write = partial(axes.text, column, color=ink, ha="center", va="center")
            write(y=row - 0.06, s=f"{count}", fontsize=12)
            write(y=row + 0.24, s=f"{100 * shares[row, column]:.0f} %", fontsize=7)
        names = [label.replace("_", " ") for label in labels]
        axes.set_xticks(range(len(labels)), names)
        axes.set_yticks(range(len(labels)), names)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _white_grid(axes, len(labels))
        return as_png(figure)


def montage_png(
    volume_hu: NDArray[np.number],
    heatmap: NDArray[np.floating],
    title: str,
    *,
    method: str = "grad-cam",
    pixel_mm: float | None = None,
    columns: int = 4,
    rows: int = 4,
) -> bytes:
    """Slices of a CT in the lung window under its heatmap, from the head down.

    `volume_hu` and `heatmap`, in [0, 1], are (slice, row, column): slices from feet to head, rows from front
    to back, columns from the patient's right to left, with square pixels. The patient is thus seen from the
    feet, the right side on the left. Slices are spread evenly, and the nearest one gives way to that in which
    the heatmap is highest. `method` stands beside the colours; `pixel_mm`, a pixel's side, gives a bar of 5 cm.
    MismatchError for shapes that differ, FormatError for values that are not finite.
    """
    if volume_hu.ndim != 3 or volume_hu.shape != heatmap.shape:
        raise MismatchError(f"the heatmap is {heatmap.shape} for a volume of {volume_hu.shape}")
    if not (np.isfinite(volume_hu).all() and np.isfinite(heatmap).all()):
        raise FormatError("the volume or the heatmap has values that are not finite")
    slices, height, width = volume_hu.shape
    chosen = _spread(heatmap, rows * columns)
    rows = -(-len(chosen) // columns)
    tile, gap, top, bottom, right = 1.6, 0.04, 0.42, 0.34, 0.95  # inches
    tall = tile * height / width
    figure_width, figure_height = columns * (tile + gap) + gap + right, rows * (tall + gap) + top + bottom
    level, window = LUNG_WINDOW_HU
    with blank_figure(figure_width, figure_height, background="black") as figure:
        for number, index in enumerate(chosen):
            row, column = divmod(number, columns)
            x, y = gap + column * (tile + gap), figure_height - top - row * (tall + gap) - tall
            axes = placed_axes(figure, x, y, tile, tall)
            axes.set_axis_off()
            grey = (volume_hu[index] - level) / window + 0.5
            axes.imshow(grey, interpolation="bicubic", cmap="gray", vmin=0, vmax=1)
            axes.imshow(heatmap[index], interpolation="bilinear", cmap=_overlay(), vmin=0, vmax=1)
            _annotate(axes, index, slices)
            if pixel_mm is not None and number == len(chosen) - 1:
                _length_bar(axes, BAR_MM / pixel_mm / width)
        bar = placed_axes(figure, figure_width - right + 0.12, bottom, 0.13, figure_height - top - bottom - gap)
        _scale(bar, (LUNG_HU - level) / window + 0.5, method)
        figure.text(gap / figure_width, 1 - 0.5 * top / figure_height, title, color="white", fontsize=10, va="center")
        figure.text(gap / figure_width, 0.5 * bottom / figure_height, NOTICE, color="#ffb000", fontsize=8, va="center")
        return as_png(figure)


def _spread(heatmap: NDArray[np.floating], count: int) -> list[int]:
    """Up to `count` slices from the last to the first, the middles of equal parts, with the highest one in place."""
    slices = len(heatmap)
    count = min(count, slices)
    chosen = [int((i + 0.5) * slices / count) for i in range(count)]
    highest = int(heatmap.max(axis=(1, 2)).argmax())
    chosen[min(range(count), key=lambda i: abs(chosen[i] - highest))] = highest
    return chosen[::-1]


def overlay_colours() -> NDArray[np.uint8]:
    """The heatmaps' colours for others who draw them: uint8 (256, 4), red, green, blue, opacity of heat 0 to 1."""
    colours: NDArray[np.uint8] = _overlay()(np.arange(256), bytes=True)
    return colours


def _overlay() -> LinearSegmentedColormap:
    """Inferno, perceptually uniform, without its black end; transparent at 0.2 and below, never opaque."""
    levels = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["inferno"](0.25 + 0.7 * levels)
    colours[:, 3] = 0.75 * np.clip((levels - 0.2) / 0.4, 0, 1)
    return LinearSegmentedColormap.from_list("overlay", colours.tolist())


def _annotate(axes: Axes, index: int, slices: int) -> None:
    """The slice's number, from 1 at the feet, and the patient's sides."""
    for x, y, text in ((0.03, 0.03, f"{index + 1}/{slices}"), (0.03, 0.97, "R"), (0.97, 0.97, "L")):
        across, along = "left" if x < 0.5 else "right", "bottom" if y < 0.5 else "top"
        mark = axes.text(x, y, text, ha=across, va=along, color="0.9", fontsize=6.5, transform=axes.transAxes)
        mark.set_path_effects([withStroke(linewidth=1.5, foreground="black")])  # legible on bone, too


def _length_bar(axes: Axes, share: float) -> None:
    """A bar of 5 cm, which is so much of the tile's width, at the lower middle."""
    (bar,) = axes.plot((0.5 - share / 2, 0.5 + share / 2), (0.05, 0.05), color="0.9", lw=1, transform=axes.transAxes)
    mark = axes.text(
        0.5, 0.07, f"{BAR_MM / 10:g} cm", ha="center", va="bottom", color="0.9", fontsize=5.5, transform=axes.transAxes
    )
    for artist in (bar, mark):
        artist.set_path_effects([withStroke(linewidth=2.5, foreground="black")])


def _scale(axes: Axes, lung: float, method: str) -> None:
    """The heatmap's colours as they look on the grey of lung, for that is what they lie on."""
    gradient = np.linspace(0, 1, 256)[:, None]
    axes.imshow(np.full_like(gradient, lung), cmap="gray", vmin=0, vmax=1, aspect="auto", extent=(0, 1, 0, 1))
    axes.imshow(gradient, cmap=_overlay(), vmin=0, vmax=1, aspect="auto", extent=(0, 1, 0, 1), origin="lower")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.tick_params(colors="0.85", labelsize=6.5, length=2, width=0.5)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(f"{method}, share of maximum", color="0.85", fontsize=7)
    axes.spines[:].set_visible(False)


def placed_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the lower left corner."""
    across, along = figure.get_size_inches()
    return figure.add_axes((x / across, y / along, width / across, height / along))


def _white_grid(axes: Axes, count: int) -> None:
    axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)


def _cycle(count: int, of: Sequence[str] = COLOURS) -> list[str]:
    return [of[i % len(of)] for i in range(count)]


@contextmanager
def blank_figure(width: float, height: float, background: str = "white") -> Iterator[Figure]:
    """A figure of so many inches in matplotlib's default style; drawn and saved inside the context."""
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor=background)
        FigureCanvasAgg(figure)
        yield figure


def as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the name and version of matplotlib inside.
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
