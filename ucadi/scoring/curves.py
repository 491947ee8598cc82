"""The learning curve of a training as PNG bytes: loss, AUC and learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from ucadi.scoring.plots import COLOURS, as_png, blank_figure, placed_axes

Line = Sequence[float | None]
"""A value for each epoch, None where it was not measured."""


def learning_curve_png(epochs: Sequence[int], panels: Mapping[str, Mapping[str, Line]]) -> bytes:
    """One panel above another, by its label on the axis, each with its lines by name. Epochs are counted from 1."""
    height, gap = 1.7, 0.25
    with blank_figure(6.4, 0.75 + len(panels) * (height + gap)) as figure:
        for number, (label, lines) in enumerate(panels.items()):
            axes = placed_axes(figure, 0.8, 0.6 + (len(panels) - 1 - number) * (height + gap), 5.4, height)
            for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
                found = [(epoch + 1, value) for epoch, value in zip(epochs, line, strict=True) if value is not None]
                if found:
                    axes.plot(*zip(*found, strict=True), color=colour, linewidth=1.6, marker=".", label=name)
            axes.set(ylabel=label, xlim=(min(epochs) + 0.5, max(epochs) + 1.5))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(color="0.92", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if len(lines) > 1:
                axes.legend(fontsize=7.5, frameon=False)
            if number == len(panels) - 1:
                axes.set_xlabel("epoch")
            else:
                axes.tick_params(labelbottom=False)
        return as_png(figure)
