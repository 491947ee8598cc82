"""Does a heatmap lie where the disease is? Measures against a mask of the lesions, and between heatmaps.

Heatmaps are float (slice, row, column), not negative; masks bool of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ucadi.errors import FormatError, MismatchError

Mask = NDArray[np.bool_]


def pointing(
    heatmap: NDArray[np.floating], lesions: Mask, spacing_mm: Sequence[float], tolerance_mm: float = 0
) -> float:
    """The pointing game (Zhang et al., IJCV 2018): 1 if the highest voxel is within `tolerance_mm` of a lesion, else 0.

    Of several voxels that are equally high, the share that does; so a uniform map scores what a blind guess does
    on average. A heatmap of zeros points nowhere and scores 0.
    """
    _check(heatmap, lesions)
    if not heatmap.any():
        return 0.0
    highest = heatmap == heatmap.max()
    return float(_grown(lesions, spacing_mm, tolerance_mm)[highest].mean())


def energy(heatmap: NDArray[np.floating], lesions: Mask) -> float:
    """The energy-based pointing game (Wang et al., CVPR workshops 2020): the share of the heat that lies in lesions."""
    _check(heatmap, lesions)
    total = float(heatmap.sum(dtype=np.float64))
    return float(heatmap[lesions].sum(dtype=np.float64)) / total if total > 0 else 0.0


def edge_map(hu: NDArray[np.number]) -> NDArray[np.float32]:
    """The gradient's magnitude of a CT (Sobel): a map that knows the image and no diagnosis (Adebayo et al. 2018)."""
    from scipy import ndimage

    edges: NDArray[np.float32] = ndimage.generic_gradient_magnitude(hu.astype(np.float32), ndimage.sobel)
    return edges


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's correlation of two heatmaps, by which Adebayo et al. (NeurIPS 2018) compare them.

    0 if one is constant.
    """
    from scipy import stats

    if one.shape != other.shape:
        raise MismatchError(f"heatmaps of {one.shape} and {other.shape}")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(one, other, axis=None).statistic)


def mean_interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean over cases, and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13)."""
    found = np.asarray(values, float)
    if not found.size or not np.isfinite(found).all():
        raise FormatError(f"no mean of {found.size} cases, or of values that are not finite")
    drawn = np.random.default_rng(seed).integers(found.size, size=(resamples, found.size))
    low, high = np.quantile(found[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(found.mean()), float(low), float(high)


def _grown(lesions: Mask, spacing_mm: Sequence[float], by_mm: float) -> Mask:
    """The lesions with all that is not farther than `by_mm` from them."""
    from scipy import ndimage

    if by_mm <= 0 or not lesions.any():
        return lesions
    grown: Mask = ndimage.distance_transform_edt(~lesions, sampling=tuple(spacing_mm)) <= by_mm
    return grown


def _check(heatmap: NDArray[np.floating], lesions: Mask) -> None:
    if heatmap.shape != lesions.shape or lesions.dtype != np.bool_:
        raise MismatchError(f"a heatmap of {heatmap.shape} for lesions {lesions.dtype} {lesions.shape}")
    if not np.isfinite(heatmap).all() or heatmap.min(initial=0) < 0:
        raise FormatError("the heatmap has values that are negative or not finite")
