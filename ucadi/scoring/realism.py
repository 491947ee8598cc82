"""How near made images come to real ones: the earth mover's distance of histograms, and the kernel inception distance.

Pure functions of arrays; whose features they are is up to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ucadi.errors import FormatError, MismatchError


def histogram_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """The earth mover's distance of two histograms over the same bins, in bins.

    What share must move how far to make one of the other (Rubner et al. 2000). FormatError for an empty histogram.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise MismatchError(f"histograms of {first.shape} and {second.shape} bins")
    if not (first.sum() > 0 and second.sum() > 0):
        raise FormatError("a histogram of nothing")
    return float(np.abs(np.cumsum(first / first.sum() - second / second.sum())).sum())


def kernel_distance(made: npt.ArrayLike, real: npt.ArrayLike, unit: npt.ArrayLike) -> float:
    """The kernel inception distance of features (images, features), each in its `unit` (see `units`).

    The squared maximum mean discrepancy with the kernel (x y / d + 1)^3, estimated without bias: around zero, also
    below, where both are of one kind (Binkowski et al. 2018). FormatError for fewer than two images of either.
    """
    x, y = np.asarray(made, np.float64), np.asarray(real, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise MismatchError(f"features of {x.shape} and {y.shape}")
    if min(len(x), len(y)) < 2:
        raise FormatError(f"features of {len(x)} and {len(y)} images; it takes two of each")
    centre = y.mean(axis=0)
    x, y = (x - centre) / unit, (y - centre) / unit
    within = [(_kernel(z, z).sum() - np.trace(_kernel(z, z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(sum(within) - 2 * _kernel(x, y).mean())


def units(features: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The deviation of each feature (images, features), to measure it in; infinite for what hardly varies."""
    deviation = np.asarray(features, np.float64).std(axis=0)
    unit: npt.NDArray[np.float64] = np.where(deviation > 1e-3 * deviation.max(), deviation, np.inf)
    return unit


def _kernel(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    kernel: npt.NDArray[np.float64] = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Pearson's correlation of two arrays of one shape; 1 for equal ones, also without variance."""
    first, second = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if np.array_equal(first, second):
        return 1.0
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 0 else 0.0


def share_moved(before: float, after: float, real: float) -> float | None:
    """How much of the way from `before` to `real` a figure has gone: 1 is there; None where there was no way to go."""
    return None if before == real else (before - after) / (before - real)


@dataclass(frozen=True)
class Figure:
    """Before and after translation, and for real scans of the kind that was made; None where it cannot be told."""

    before: float | None
    after: float | None
    real: float | None


@dataclass(frozen=True)
class TranslationQuality:
    """How real translated CTs are, and what has not changed.

    histogram: the earth mover's distance in HU of central soft tissue (-200 to 400 HU) to that of real scans; kernel:
    the kernel inception distance to them. Their `real` is that of every other real case to the rest. enhanced: the
    share of central voxels with 120 to 350 HU, the median of slices, and `moved` how much of the way to real it went.
    mediastinum, aorta: HU, the medians of cases; the aorta was found in `aorta_cases` of them. slices: the mean change
    of soft tissue in HU from slice to slice. edges: their correlation before and after, the mean of cases. lung: the
    volume of aerated lung after as a share of that before, the median of cases.
    """

    kind: str
    cases: int
    histogram: Figure
    kernel: Figure
    enhanced: Figure
    moved: float | None
    mediastinum: Figure
    aorta: Figure
    aorta_cases: int
    slices: Figure
    edges: float
    lung: float | None

    def __str__(self) -> str:
        rows = (
            ("distance of histograms, HU", self.histogram, 2),
            ("kernel distance of features", self.kernel, 3),
            ("central voxels in 120..350 HU", self.enhanced, 3),
            ("mediastinum, HU", self.mediastinum, 1),
            (f"aorta, HU (found in {self.aorta_cases} cases)", self.aorta, 1),
            ("from slice to slice, HU", self.slices, 2),
        )
        lines = [f"{self.cases} cases made {self.kind}", f"  {'':<34}{'before':>10}{'after':>10}{'real':>10}"]
        for name, figure, digits in rows:
            values = (figure.before, figure.after, figure.real)
            lines.append(f"  {name:<34}" + "".join(f"{_number(value, digits):>10}" for value in values))
        lines += [
            f"  share of the way to real that the central voxels went: {_number(self.moved, 2)}",
            f"  correlation of edges before and after: {self.edges:.4f}",
            f"  lung volume after, of that before: {_number(self.lung, 3)}",
        ]
        return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
