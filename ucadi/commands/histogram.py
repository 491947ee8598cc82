"""ucadi histogram."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ucadi.commands import Force, Output
from ucadi.errors import FormatError, MismatchError
from ucadi.formats import container
from ucadi.formats import histogram as histogram_format
from ucadi.formats import predictions as predictions_format
from ucadi.formats.histogram import Histogram
from ucadi.formats.predictions import UNLABELLED
from ucadi.labels import Diagnosis
from ucadi.scoring import histogram as scoring
from ucadi.scoring.histogram import BinnedArea


@dataclass(frozen=True)
class HistogramResult:
    """The histogram made, and the AUC of the cases that it counts; None while they are of one kind."""

    histogram: Path
    datasets: int
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
    inputs: Annotated[list[Path], typer.Argument(help="Predictions of labelled cases, or histograms, of one model.")],
    *,
    output: Output,
    force: Force = False,
) -> HistogramResult:
    """Count cases by score, or add such counts: the pooled ROC of many sites without any case's score.

    Each site counts its own predictions; whoever adds the files has the AUC of all cases together. The counts
    are not encrypted: in a small histogram single scores can be seen, to 1/1024, though not whose they are.
    """
    held = [_read(path) for path in inputs]
    if len({one.model for one in held}) > 1:
        raise MismatchError("scores of several models", hint="make a histogram of each model")
    if len({one.counts.shape for one in held}) > 1:
        raise MismatchError("histograms of different bins", hint="make all of them with one version of ucadi")
    datasets = sorted(name for one in held for name in one.datasets)
    if len(set(datasets)) != len(datasets):
        raise MismatchError("a dataset is counted twice", hint="give each site's predictions or histogram once")
    counts = np.stack([one.counts for one in held]).sum(axis=0)
    histogram_format.write(output, Histogram(held[0].model, tuple(datasets), counts), force=force)
    negatives, positives = (int(n) for n in counts.sum(axis=1))
    area = scoring.auc(counts) if negatives and positives else None
    return HistogramResult(output, len(datasets), negatives, positives, area)


def _read(path: Path) -> Histogram:
    if container.read(path).metadata.get("format") == histogram_format.FORMAT:
        return histogram_format.read(path)
    held = predictions_format.read(path)
    if (held.labels == UNLABELLED).any():
        raise FormatError(f"{path}: has cases without a label", hint="only labelled cases can be evaluated")
    if len(set(held.cases)) != len(held.cases):
        raise FormatError(f"{path}: a case stands twice", hint="predict again")
    counts = scoring.count(held.labels == Diagnosis.COVID, held.mean[:, Diagnosis.COVID])
    return Histogram(held.model, (held.dataset,), counts)
