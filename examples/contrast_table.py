"""Prints Supplementary Tables 3 and 4 of the paper from what contrast.sh measured, and draws the former.

Usage: contrast_table.py PICTURE.png TABLE.json ... , one from `ucadi evaluate --json` for each seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean

from ucadi.scoring.plots import COLOURS, as_png, blank_figure, placed_axes

TESTS = {"noncontrast": "non-contrast", "contrast": "contrast"}
MODELS = {
    "noncontrast": ("non-contrast", "real"),
    "noncontrast-and-made": ("non-contrast", "real + synthetic"),
    "contrast": ("contrast", "real"),
    "contrast-and-made": ("contrast", "real + synthetic"),
}
METHODS = {
    "noncontrast-and-made": "CycleGAN",
    "noncontrast-and-acl-gan": "ACL-GAN",
    "noncontrast-and-council-gan": "CouncilGAN",
}
FIGURES = ("sensitivity", "specificity", "auc")


def figure(report: dict, name: str) -> float:
    return report["covid"][name]["value"]


def draw(seeds: list[dict]) -> bytes:
    """AUC of each model on either kind of test scans: a mark for each seed, a line for the mean."""
    with blank_figure(6.4, 3.6) as picture:
        axes = placed_axes(picture, 0.75, 0.85, 5.4, 2.4)
        for number, test in enumerate(TESTS):
            for place, model in enumerate(MODELS):
                values = [figure(reports[model][test], "auc") for reports in seeds]
                x = place + (number - 0.5) * 0.3
                axes.plot([x] * len(values), values, "o", color=COLOURS[number], markersize=4, alpha=0.6)
                mean = fmean(values)
                label = f"tested on {TESTS[test]} scans" if place == 0 else None
                axes.plot([x - 0.11, x + 0.11], [mean, mean], color=COLOURS[number], linewidth=2.5, label=label)
        axes.set_xticks(range(len(MODELS)), [f"{kind}\n{what}" for kind, what in MODELS.values()], fontsize=8)
        axes.set(ylabel="AUC of COVID-19", xlabel="trained on")
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        return as_png(picture)


def main(picture: Path, paths: list[Path]) -> None:
    seeds = [json.loads(path.read_text())["reports"] for path in paths]
    print(f"\nCOVID-19 against all others, mean of {len(seeds)} seeds (paper, Supplementary Table 3)")
    print(f"  {'trained on':<28}" + "".join(f"{kind:>18}" for kind, _ in MODELS.values()))
    print(f"  {'tested on':<28}" + "".join(f"{what:>18}" for _, what in MODELS.values()))
    for test, name in TESTS.items():
        cases = seeds[0]["noncontrast"][test]["cases"]
        for row, what in enumerate(FIGURES):
            title = f"{name} ({cases} scans)" if row == 0 else ""
            means = [fmean(figure(reports[model][test], what) for reports in seeds) for model in MODELS]
            print(f"  {title:<28}" + "".join(f"{f'{what} {mean:.3f}':>18}" for mean in means))
    methods = {model: name for model, name in METHODS.items() if model in seeds[0]}
    if len(methods) > 1:
        print("\ntrained on non-contrast scans and made ones, tested on non-contrast scans (Table 4)")
        for model, name in methods.items():
            means = {what: fmean(figure(reports[model]["noncontrast"], what) for reports in seeds) for what in FIGURES}
            print(f"  {name:<28}" + "".join(f"{f'{what} {mean:.3f}':>20}" for what, mean in means.items()))
    picture.write_bytes(draw(seeds))
    print(f"\nthe same as a picture: {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
