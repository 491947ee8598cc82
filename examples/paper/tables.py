"""Tables and plots of the experiments, from what `ucadi evaluate --json` says.

Usage: tables.py areas|domains|confusion TABLE.json PLOT.png ..., as the scripts beside it call it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from ucadi.labels import LABELS
from ucadi.scoring.plots import COLOURS, as_png, blank_figure, confusion_png, placed_axes

Reports = dict[str, dict[str, Any]]
"""By model and test set."""

POOLED = "pooled"


def read(path: str | Path) -> Reports:
    reports: Reports = json.loads(Path(path).read_text())["reports"]
    return reports


def name(test: str) -> str:
    return test.removeprefix("test-")


def spread(figure: dict[str, float | None] | None) -> str:
    if not figure or figure["value"] is None:
        return "-"
    bounds = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{bounds}"


def ordered(reports: Reports) -> list[str]:
    """The local models, and last the federated one."""
    return sorted(reports, key=lambda model: (model == "federated", model))


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def areas(table: str, plot: str, title: str) -> None:
    """A row of intervals for each model, a group for each test set (paper, Fig. 4)."""
    reports = read(table)
    models = ordered(reports)
    tests = list(reports[models[0]])
    with blank_figure(6.4, 0.95 + 0.22 * len(tests) * (len(models) + 1)) as figure:
        axes = placed_axes(figure, 1.2, 0.55, 4.9, 0.22 * len(tests) * (len(models) + 1))
        for group, test in enumerate(tests):
            for place, model in enumerate(models):
                area = reports[model][test]["covid"]["auc"]
                if area is None:
                    continue
                y = -(group * (len(models) + 1) + place)
                low, high = (area["low"], area["high"]) if area["low"] is not None else (area["value"],) * 2
                axes.plot([low, high], [y, y], color=COLOURS[place % len(COLOURS)], linewidth=2)
                axes.plot(area["value"], y, "o", color=COLOURS[place % len(COLOURS)], markersize=5)
                axes.annotate(model, (high, y), (4, 0), textcoords="offset points", va="center", fontsize=7)
        middles = [-(group * (len(models) + 1) + (len(models) - 1) / 2) for group in range(len(tests))]
        axes.set_yticks(middles, [name(test) for test in tests])
        axes.set_ylim(-(len(tests) * (len(models) + 1) - 1.2), 0.8)
        lowest = max(0.0, axes.get_xlim()[0])
        axes.set(title=title, xlabel="AUC with 95 % interval", xlim=(lowest, 1 + 0.2 * (1 - lowest)))
        axes.set_xticks([tick for tick in axes.get_xticks() if lowest <= tick <= 1])
        axes.grid(axis="x", color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        Path(plot).write_bytes(as_png(figure))


def domains(table: str, plot: str) -> None:
    """The AUC of each model on each site's test set, as a table and as shades."""
    reports = read(table)
    models = ordered(reports)
    tests = list(reports[models[0]])
    rows = [[model, *(spread(reports[model][test]["covid"]["auc"]) for test in tests)] for model in models]
    print("AUC of COVID-19 against all others, 95 % intervals in brackets: trained at (rows), tested at (columns)\n")
    show(["model of", *map(name, tests)], rows)
    values = np.array([[(reports[m][t]["covid"]["auc"] or {"value": np.nan})["value"] for t in tests] for m in models])
    with blank_figure(1.9 + 0.95 * len(tests), 1.1 + 0.6 * len(models)) as figure:
        axes = placed_axes(figure, 1.3, 0.35, 0.95 * len(tests), 0.6 * len(models))
        axes.imshow(values, cmap="Blues", vmin=0.5, vmax=1.1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value > 0.85 else "0.15")
        axes.set_xticks(range(len(tests)), [name(test) for test in tests])
        axes.set_yticks(range(len(models)), models)
        axes.xaxis.tick_top()
        axes.set(ylabel="trained at", title="AUC of COVID-19, tested at")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        Path(plot).write_bytes(as_png(figure))


def confusion(table: str, plot: str) -> None:
    """Every model's matrices on all test sets together, two classes above four."""
    from PIL import Image

    reports = {model: tests.get(POOLED) or next(iter(tests.values())) for model, tests in read(table).items()}
    models = ordered(reports)
    for model in models:
        report = reports[model]
        print(f"{model}: truth by rows")
        show(
            ["", "others", "covid"],
            [[t, *map(str, r)] for t, r in zip(("others", "covid"), report["covid"]["confusion"], strict=True)],
        )
        show(["", *LABELS], [[t, *map(str, r)] for t, r in zip(LABELS, report["confusion"], strict=True)])
        print()
    pictures = [
        [Image.open(BytesIO(confusion_png(matrix, labels, model))) for model, matrix in matrices]
        for labels, matrices in (
            (("others", "covid"), [(m, reports[m]["covid"]["confusion"]) for m in models]),
            (LABELS, [(m, reports[m]["confusion"]) for m in models]),
        )
    ]
    width = max(picture.width for row in pictures for picture in row)
    heights = [row[0].height for row in pictures]
    sheet = Image.new("RGB", (width * len(models), sum(heights)), "white")
    for row, top in zip(pictures, (0, heights[0]), strict=True):
        for place, picture in enumerate(row):
            sheet.paste(picture, (place * width + (width - picture.width) // 2, top))
    sheet.save(plot)


def synchronise(table: str, plot: str, *every: str) -> None:
    """AUC, and where the time goes, against local epochs per round (paper, Fig. 5a and 5b)."""
    reports, folder = read(table), Path(table).parent
    parts = ("training", "encryption", "transfer", "aggregation", "decryption")
    rows, times = [], []
    for epochs in every:
        rounds = json.loads((folder / f"{epochs}.times").read_text())["rounds"]
        times.append([sum(one[part] or 0 for one in rounds) for part in parts])
        covid = reports[f"every-{epochs}"][POOLED]["covid"]
        rows.append([epochs, str(len(rounds)), spread(covid["auc"]), *(f"{t:.1f}" for t in times[-1])])
    print(
        "the federated model, synchronised each so many epochs: pooled AUC; seconds of all rounds together, the slowest"
    )
    print("site of each, transfer computed at 900 kB/s\n")
    show(["epochs", "rounds", "AUC", *parts], rows)
    found = [reports[f"every-{epochs}"][POOLED]["covid"]["auc"] for epochs in every]
    with blank_figure(8.4, 3.4) as figure:
        left = placed_axes(figure, 0.7, 0.6, 3.2, 2.4)
        values = [area["value"] for area in found]
        errors = [[v - a["low"] for v, a in zip(values, found, strict=True)], [a["high"] - a["value"] for a in found]]
        left.errorbar(range(len(every)), values, errors, marker="o", color=COLOURS[0], capsize=3)
        left.set(title="a  performance", ylabel="AUC, all test sets", xlabel="local epochs per round")
        right = placed_axes(figure, 4.7, 0.6, 3.4, 2.4)
        bottom = np.zeros(len(every))
        for part, colour, seconds in zip(parts, COLOURS, np.array(times).T, strict=False):
            right.bar(range(len(every)), seconds, bottom=bottom, color=colour, label=part, width=0.6)
            bottom += seconds
        right.set(title="b  time", ylabel="seconds", xlabel="local epochs per round")
        right.set_ylim(0, 1.3 * bottom.max())
        right.legend(fontsize=7, frameon=False, ncols=3, loc="upper center")
        for axes in (left, right):
            axes.set_xticks(range(len(every)), every)
            axes.spines[["top", "right"]].set_visible(False)
        Path(plot).write_bytes(as_png(figure))


def networks(table: str, plot: str, *names: str) -> None:
    """Performance as trained here, size and work as published (paper, Supplementary Tables 6 and 7)."""
    reports, folder = read(table), Path(table).parent
    rows = []
    for network in names:
        covid = reports[network][POOLED]["covid"]
        rounds = json.loads((folder / f"{network}.times").read_text())["rounds"]
        parameters, work = published_size(network)
        seconds = sum(one["training"] for one in rounds)
        figures = [spread(covid[figure]) for figure in ("auc", "sensitivity", "specificity")]
        rows.append([network, *figures, f"{parameters / 1e6:.2f} M", f"{work / 1e9:.1f} G", f"{seconds:.0f} s"])
    print(
        "each network trained by the federation, all test sets together; parameters; floating-point operations, two a"
    )
    print("multiply-add, of the full width on 16 x 128 x 128; seconds of training here, at the width given\n")
    show(["network", "AUC", "sensitivity", "specificity", "parameters", "FLOPs", "training"], rows)
    with blank_figure(4.8, 3.6) as figure:
        axes = placed_axes(figure, 0.75, 0.6, 3.8, 2.6)
        for network, colour in zip(names, COLOURS, strict=False):
            area = reports[network][POOLED]["covid"]["auc"]
            work = published_size(network)[1] / 1e9
            axes.plot([work, work], [area["low"], area["high"]], color=colour, linewidth=2)
            axes.plot(work, area["value"], "o", color=colour)
            axes.annotate(network, (work, area["value"]), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set(
            xlabel="GFLOPs of the network at full size",
            ylabel="AUC, all test sets",
            xlim=(0, axes.get_xlim()[1] * 1.35),
        )
        axes.spines[["top", "right"]].set_visible(False)
        Path(plot).write_bytes(as_png(figure))


def published_size(network: str) -> tuple[int, int]:
    """Parameters, and floating-point operations for one input, of the network as published."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ucadi.learn.networks.architecture import Architecture

    with torch.device("meta"):
        architecture = Architecture.of(network)
        model = architecture.blueprint.load()(architecture).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, 1, 16, 128, 128))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


def select(folder: str, folds: str) -> None:
    """Prints each fold's validation AUCs and puts the model of the best fold of each kind into FOLDER/best."""
    place, numbers = Path(folder), range(1, int(folds) + 1)
    found = {k: read(place / str(k) / "table.json") for k in numbers}
    best = place / "best"
    best.mkdir(exist_ok=True)
    rows = []
    for model in ordered(found[1]):
        # a site's model is validated on its own patients, as it would be alone; the federated one on everybody's
        own = POOLED if model == "federated" else f"train-{model}"
        values = [(found[k][model][own]["covid"]["auc"] or {"value": float("nan")})["value"] for k in numbers]
        chosen = max(numbers, key=lambda k: values[k - 1] if values[k - 1] == values[k - 1] else -1)
        shutil.copy(place / str(chosen) / f"{model}.weights", best / f"{model}.weights")
        known = [value for value in values if value == value]
        deviation = stdev(known) if len(known) > 1 else 0.0
        rows.append([model, *(f"{v:.3f}" for v in values), f"{fmean(known):.3f} ± {deviation:.3f}", str(chosen)])
    print("AUC of COVID-19 on each fold's patients, whom nobody trained on; mean and standard deviation; fold chosen\n")
    show(["model", *map(str, numbers), "mean", "chosen"], rows)
    print()


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (areas, domains, confusion, synchronise, networks, select)
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
