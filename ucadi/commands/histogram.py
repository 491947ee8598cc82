"""ucadi histogram."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ucadi.commands import Force, Output, refuse_unused, without
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.files import refuse_existing
from ucadi.formats import container
from ucadi.formats import histogram as histogram_format
from ucadi.formats import predictions as predictions_format
from ucadi.formats import update as update_format
from ucadi.formats.container import Container
from ucadi.formats.histogram import Histogram
from ucadi.formats.predictions import UNLABELLED
from ucadi.labels import Diagnosis
from ucadi.rounds.counting import opened_histogram
from ucadi.rounds.round import Round
from ucadi.scoring import histogram as scoring
from ucadi.scoring.histogram import BinnedArea

_COUNTED = (predictions_format.FORMAT, histogram_format.FORMAT, update_format.AGGREGATE_FORMAT)
"""What may be counted or added."""


@dataclass(frozen=True)
class HistogramResult:
    """The histogram made, and the AUC of the cases that it counts; None while they are of one kind."""

    histogram: Path
    datasets: int
    sites: tuple[str, ...]
    """Whose counts were added under encryption."""
    negatives: int
    positives: int
    auc: BinnedArea | None

    def __str__(self) -> str:
        lines = [f"{self.histogram}: {self.positives} cases with COVID-19, {self.negatives} without"]
        if self.auc:
            area, spread = self.auc.area, ""
            if area.low is not None and area.high is not None:
                spread = f" [{area.low:.4f}, {area.high:.4f}]"
            lines.append(f"  AUC {area.value:.4f}{spread}; unbinned within {self.auc.least:.4f} to {self.auc.most:.4f}")
        return "\n".join(lines)


def histogram(
    inputs: Annotated[
        list[Path], typer.Argument(help="Predictions of labelled cases, histograms, opened sums of them; of one model.")
    ],
    *,
    output: Output,
    plan: Annotated[Path | None, typer.Option(help="The counting round's signed plan, for an opened sum.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The federation's signed roster, for an opened sum.")] = None,
    force: Force = False,
) -> HistogramResult:
    """Count cases by score, or add such counts: the pooled ROC of many sites without any case's score.

    Each site counts its own predictions; whoever adds the files has the AUC of all cases together. These counts
    are not encrypted: in a small histogram single scores can be seen, to 1/1024, though not whose they are.
    In a counting round (round open --count-scores-of), encrypt takes a histogram as it takes an update, and the opened
    sum becomes the histogram of all sites here.

    Example:
        ucadi histogram test.predictions -o test.histogram
    """
    if (plan is None) != (roster is None):
        raise UsageError("a plan is read with its roster", hint="--plan and --roster, or neither")
    files = [(path, container.read(path, *_COUNTED)) for path in without(output, inputs)]
    if not any(file.metadata.get("format") == update_format.AGGREGATE_FORMAT for _, file in files):
        refuse_unused({"--plan": plan, "--roster": roster}, "only an opened sum is read under its round's plan")
    round_ = Round.read(plan, roster) if plan and roster else None
    refuse_existing(output, force=force)
    held = [_parsed(path, file, round_) for path, file in files]
    if not held:
        raise UsageError(f"{output}: nothing to count but the output itself", hint="name predictions or histograms")
    if len({one.model for one in held}) > 1:
        raise MismatchError("scores of several models", hint="make a histogram of each model")
    if len({one.counts.shape for one in held}) > 1:
        raise MismatchError("histograms of different bins", hint="make all of them with one version of ucadi")
    datasets = _once((name for one in held for name in one.datasets), "dataset")
    sites = _once((name for one in held for name in one.sites), "site")
    counts = np.stack([one.counts for one in held]).sum(axis=0)
    histogram_format.write(output, Histogram(held[0].model, datasets, counts, sites), force=force)
    negatives, positives = (int(n) for n in counts.sum(axis=1))
    area = scoring.auc(counts) if negatives and positives else None
    return HistogramResult(output, len(datasets), sites, negatives, positives, area)


def _once(names: Iterable[str], what: str) -> tuple[str, ...]:
    ordered = tuple(sorted(names))
    if len(set(ordered)) != len(ordered):
        raise MismatchError(f"a {what} is counted twice", hint="give each site's predictions or histogram once")
    return ordered


def _parsed(path: Path, found: Container, round_: Round | None) -> Histogram:
    if found.metadata.get("format") == histogram_format.FORMAT:
        return histogram_format.parse(found, path.name)
    if found.metadata.get("format") == update_format.AGGREGATE_FORMAT:
        if round_ is None:
            raise UsageError("an opened sum is read under its round's plan", hint="--plan and --roster")
        return opened_histogram(update_format.parse_aggregate(found, path.name), round_, path.name)
    held = predictions_format.parse(found, path.name)
    if (held.labels == UNLABELLED).any():
        raise FormatError(f"{path}: has cases without a label", hint="only labelled cases can be evaluated")
    if len(set(held.cases)) != len(held.cases):
        raise FormatError(f"{path}: a case stands twice", hint="predict again")
    counts = scoring.count(held.labels == Diagnosis.COVID, held.mean[:, Diagnosis.COVID])
    return Histogram(held.model, (held.dataset,), counts)
