"""Prints what the example found: the AUC of every model on every site's test set, for each seed and on average.

Usage: three_sites_table.py TABLE.json ... , one from `ucadi evaluate --json` for each seed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

MODELS = ("north", "south", "east", "federated")
TESTS = ("test-north", "test-south", "test-east", "pooled")


def auc(reports: dict[str, dict], model: str, test: str) -> float:
    return reports[model][test]["covid"]["auc"]["value"]


def row(name: str, figures: Iterable[float]) -> str:
    return f"  {name:<12}" + "".join(f"{figure:>12.3f}" for figure in figures)


def main(paths: list[str]) -> None:
    seeds = [json.loads(Path(path).read_text())["reports"] for path in paths]
    cases = seeds[0]["federated"]["pooled"]["cases"]
    print("AUC of COVID-19 against all others, on each site's test set and on all of them together")
    print(f"({cases} patients; each model trained with as many gradient steps a site)\n")
    header = f"  {'model of':<12}" + "".join(f"{test.removeprefix('test-'):>12}" for test in TESTS)
    for number, reports in enumerate(seeds, start=1):
        print(f"seed {number}\n{header}")
        print(*(row(model, (auc(reports, model, test) for test in TESTS)) for model in MODELS), sep="\n", end="\n\n")
    print(f"mean of {len(seeds)} seeds\n{header}")
    means = {model: [fmean(auc(reports, model, test) for reports in seeds) for test in TESTS] for model in MODELS}
    print(*(row(model, means[model]) for model in MODELS), sep="\n", end="\n\n")
    best = max(MODELS[:-1], key=lambda model: means[model][-1])
    gain = means["federated"][-1] - means[best][-1]
    wins = sum(auc(r, "federated", "pooled") > max(auc(r, m, "pooled") for m in MODELS[:-1]) for r in seeds)
    verdict = "better" if gain > 0 else "worse"
    print(f"pooled, the federated model is {abs(gain):.3f} {verdict} than the best local one ({best}) on average,")
    print(f"and better than every local one in {wins} of {len(seeds)} seeds")


if __name__ == "__main__":
    main(sys.argv[1:])
