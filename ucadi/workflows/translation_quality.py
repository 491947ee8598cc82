"""How real translated CTs look, and what translation has left unchanged, measured one volume after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from ucadi.ct import enhancement, sampling
from ucadi.ct.observation import central_tissue_hu, lung_and_body_mm2
from ucadi.ct.translation import Window
from ucadi.ct.volume import Volume
from ucadi.formats import weights as weights_format
from ucadi.learn.features import classifier_features, fixed_features
from ucadi.learn.networks.registry import check_input, restore
from ucadi.scoring.realism import (
    Figure,
    TranslationQuality,
    correlation,
    histogram_distance,
    kernel_distance,
    share_moved,
    units,
)
from ucadi.translation.recipe import NONCONTRAST


class Features:
    """What the kernel distance is measured in: features of slices' central parts, or of cases by a classifier."""

    def __init__(self, classifier: Path | None) -> None:

        weights = None if classifier is None else weights_format.read(classifier)
        self._network = None if weights is None else restore(weights.architecture, weights.arrays)

    def of(self, volume: Volume, case: str) -> npt.NDArray[np.float32]:
        """Features (images, features) of a volume: of its slices of a sampling, or of the case as one."""

        indices = sampling.test_indices(len(volume.hu), 0, case)
        if self._network is not None:
            check_input(self._network, volume.hu.shape[1], f"case {case}")
            return classifier_features(self._network, [sampling.slabs(volume.hu, indices)])
        chosen = np.unique(indices[0])
        return fixed_features(Window().to_unit(enhancement.central(volume.hu[chosen]))[:, np.newaxis])


class Collected:
    """What is measured of volumes, one after the other."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self.counts: list[npt.NDArray[np.int64]] = []
        self.features: list[npt.NDArray[np.float32]] = []
        self.shares: list[float] = []
        self.mediastinum: list[float] = []
        self.aorta: list[float] = []
        self.slices: list[float] = []
        self.edges: list[float] = []
        self.lung: list[float] = []

    def add(self, volume: Volume, case: str, with_aorta: Volume | None = None) -> None:
        """Measures a volume; the aorta where it is in `with_aorta`, which has contrast medium and the same geometry."""

        self.counts.append(enhancement.soft_tissue_counts(volume.hu))
        self.features.append(self._features.of(volume, case))
        self.shares += enhancement.enhanced_share(volume.hu).tolist()
        self.mediastinum.append(central_tissue_hu(volume))
        if len(volume.hu) > 1:
            self.slices.append(enhancement.slice_change(volume.hu))
        aorta = enhancement.descending_aorta(volume if with_aorta is None else with_aorta)
        if aorta.any():
            self.aorta.append(float(volume.hu[aorta].mean()))

    def compare(self, volume: Volume, result: Volume) -> None:
        """Measures what should not have changed from a volume to what was made of it."""

        self.edges.append(correlation(enhancement.edges(volume.hu), enhancement.edges(result.hu)))
        lungs = [float(lung_and_body_mm2(one)[0].sum()) for one in (volume, result)]
        if lungs[0] > 0:
            self.lung.append(lungs[1] / lungs[0])


def compared(kind: str, before: Collected, after: Collected, goal: Collected) -> TranslationQuality:
    share = Figure(median(before.shares), median(after.shares), median(goal.shares))
    unit = units(np.concatenate([*before.features, *goal.features]))
    return TranslationQuality(
        kind,
        len(before.edges),
        Figure(
            _histograms(before.counts, goal.counts),
            _histograms(after.counts, goal.counts),
            _histograms(goal.counts[::2], goal.counts[1::2]),
        ),
        Figure(
            _kernel(before.features, goal.features, unit),
            _kernel(after.features, goal.features, unit),
            _kernel(goal.features[::2], goal.features[1::2], unit),
        ),
        share,
        share_moved(median(before.shares), median(after.shares), median(goal.shares)),
        Figure(_median(before.mediastinum), _median(after.mediastinum), _median(goal.mediastinum)),
        Figure(_median(before.aorta), _median(after.aorta), _median(goal.aorta) if kind != NONCONTRAST else None),
        len(before.aorta),
        Figure(_median(before.slices), _median(after.slices), _median(goal.slices)),
        float(np.mean(before.edges)),
        _median(before.lung),
    )


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _histograms(a: Sequence[npt.NDArray[np.int64]], b: Sequence[npt.NDArray[np.int64]]) -> float | None:
    return histogram_distance(np.sum(a, axis=0), np.sum(b, axis=0)) if a and b else None


def _kernel(
    a: Sequence[npt.NDArray[np.float32]], b: Sequence[npt.NDArray[np.float32]], unit: npt.NDArray[np.float64]
) -> float | None:
    if not (a and b):
        return None
    x, y = np.concatenate(a), np.concatenate(b)
    return kernel_distance(x, y, unit) if min(len(x), len(y)) > 1 else None
