"""Histograms of scores: what a site tells of its cases so that many sites' ROC is known; they add."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucadi.errors import FormatError
from ucadi.formats import container
from ucadi.formats.container import GET_AGAIN, Container
from ucadi.formats.signed import Fields
from ucadi.kinds import Format
from ucadi.scoring.histogram import Counts

FORMAT = Format.HISTOGRAM.id


@dataclass(frozen=True)
class Histogram:
    """Cases with and without COVID-19 by the probability that `model`, a digest, gives them.

    `datasets` are the digests of the datasets counted, sorted: none may be counted twice. Of counts that were added
    under encryption only the `sites` are known, sorted.
    """

    model: str
    datasets: tuple[str, ...]
    counts: Counts
    sites: tuple[str, ...] = ()


def write(path: Path, histogram: Histogram, *, force: bool = False) -> None:
    """Writes a histogram."""
    metadata = {**Format.HISTOGRAM.head, "model": histogram.model, "datasets": list(histogram.datasets)}
    if histogram.sites:
        metadata["sites"] = list(histogram.sites)
    container.write(path, {"counts": histogram.counts}, metadata, force=force)


def read(path: Path) -> Histogram:
    """Reads a histogram and checks that it counts."""
    return parse(container.read(path, FORMAT), path.name)


def parse(held: Container, name: str) -> Histogram:
    """The histogram that a container holds."""
    fields = Fields(held.metadata, name)
    counts = held.tensors.get("counts")
    if set(held.tensors) != {"counts"} or counts is None or counts.dtype != np.int64 or counts.ndim != 2:
        raise FormatError(f"{name}: holds other tensors than a histogram's", hint=GET_AGAIN)
    # far below what int64 holds, so that sums of any number of sites cannot overflow
    if counts.shape[0] != 2 or not counts.size or counts.min() < 0 or counts.max() > 2**40:
        raise FormatError(f"{name}: holds numbers that are no counts of cases", hint=GET_AGAIN)
    sites = tuple(fields.texts("sites")) if "sites" in fields.values else ()
    return Histogram(fields.digest("model"), tuple(fields.texts("datasets")), counts, sites)
