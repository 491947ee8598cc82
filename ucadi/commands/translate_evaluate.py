"""ucadi translate evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from ucadi.commands import Part, SplitFile
from ucadi.errors import FormatError, MismatchError
from ucadi.files import refuse_existing, write_file
from ucadi.formats import split as split_format
from ucadi.formats import weights as weights_format
from ucadi.parts import Feature, require
from ucadi.progress import track
from ucadi.scoring.realism import correlation, histogram_distance, kernel_distance, share_moved, units
from ucadi.translation.recipe import NONCONTRAST

if TYPE_CHECKING:
    from ucadi.ct.volume import Volume
    from ucadi.formats.dataset import Dataset

SAMPLES = 8
"""Cases on the sheet."""


@dataclass(frozen=True)
class Figure:
    """Before and after translation, and for real scans of the kind that was made; None where it cannot be told."""

    before: float | None
    after: float | None
    real: float | None


@dataclass(frozen=True)
class TranslateEvaluateResult:
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


def translate_evaluate(
    translated: Annotated[Path, typer.Argument(help="Synthetic cases, from translate apply.")],
    source: Annotated[Path, typer.Argument(help="The dataset of the scans that they were made of.")],
    real: Annotated[Path, typer.Argument(help="Real scans of the kind that was made; the patients may be others.")],
    *,
    split: SplitFile = None,
    part: Part = None,
    classifier: Annotated[
        Path | None, typer.Option(help="Weights whose features the kernel distance takes [default: a fixed network].")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG to write: slices before, after, and the difference.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing sheet.")] = False,
) -> TranslateEvaluateResult:
    """Measure how near translated CTs come to real ones, and whether anatomy is unchanged.

    --split and --part say which of the real scans to compare with.
    """
    require(Feature.NETWORKS, Feature.DATASETS, where={Feature.PLOTS: sheet})
    from ucadi.formats import dataset as dataset_format

    if sheet is not None:
        refuse_existing(sheet, force=force)
    with ExitStack() as opened:
        made, scans, wanted = (opened.enter_context(dataset_format.open(path)) for path in (translated, source, real))
        kind, places = _sources(made, scans)
        wanted = split_format.select(wanted, split, part).scans()
        if not len(wanted):
            raise FormatError(f"{real.name}: no scans to compare with")
        network = _Features(classifier)
        before, after, goal = _Collected(network), _Collected(network), _Collected(network)
        pairs = []
        for index, place in track(list(enumerate(places)), "comparing cases"):
            volume, result = _resized(scans.volume(place), made.size), made.volume(index)
            before.add(volume, scans.ids[place], with_aorta=volume if kind == NONCONTRAST else result)
            after.add(result, scans.ids[place], with_aorta=volume if kind == NONCONTRAST else result)
            before.compare(volume, result)
            if index < SAMPLES:
                middle = len(volume.hu) // 2
                pairs.append((f"to {kind}", volume.hu[middle], result.hu[middle]))
        for index, identifier in track(list(enumerate(wanted.ids)), "measuring real scans"):
            goal.add(_resized(wanted.volume(index), made.size), identifier)
        if sheet is not None:
            from ucadi.scoring.sheets import translation_sheet_png

            write_file(sheet, translation_sheet_png(pairs, f"{translated.name}: {kind}"), force=force)
    return _result(kind, before, after, goal)


def _sources(made: Dataset, scans: Dataset) -> tuple[str, list[int]]:
    """The kind that was made, and of each synthetic case the index of the scan that it was made of."""
    places = {identifier: index for index, identifier in enumerate(scans.ids)}
    found = [(one.kind, places.get(one.source)) for one in made.synthetic if one]
    kinds, missing = {kind for kind, _ in found}, sum(place is None for _, place in found)
    if len(found) < len(made) or len(kinds) != 1:
        raise MismatchError(f"{made.path.name}: not synthetic cases of one kind", hint="give what translate apply made")
    if missing:
        raise MismatchError(f"{scans.path.name}: {missing} of the {len(found)} scans are not in it")
    return kinds.pop(), [place for _, place in found if place is not None]


def _resized(volume: Volume, size: int) -> Volume:
    from ucadi.ct.volume import resize

    return volume if volume.hu.shape[1] == size else resize(volume, size)


class _Features:
    """What the kernel distance is measured in: features of slices' central parts, or of cases by a classifier."""

    def __init__(self, classifier: Path | None) -> None:
        from ucadi.learn.networks.registry import restore

        weights = None if classifier is None else weights_format.read(classifier)
        self._network = None if weights is None else restore(weights.architecture, weights.arrays)

    def of(self, volume: Volume, case: str) -> npt.NDArray[np.float32]:
        """Features (images, features) of a volume: of its slices of a sampling, or of the case as one."""
        from ucadi.ct import sampling
        from ucadi.ct.enhancement import central
        from ucadi.ct.translation import Window
        from ucadi.learn.features import classifier_features, fixed_features
        from ucadi.learn.networks.registry import check_input

        indices = sampling.test_indices(len(volume.hu), 0, case)
        if self._network is not None:
            check_input(self._network, volume.hu.shape[1], f"case {case}")
            return classifier_features(self._network, [sampling.slabs(volume.hu, indices)])
        chosen = np.unique(indices[0])
        return fixed_features(Window().to_unit(central(volume.hu[chosen]))[:, np.newaxis])


class _Collected:
    """What is measured of volumes, one after the other."""

    def __init__(self, features: _Features) -> None:
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
        from ucadi.ct import enhancement
        from ucadi.ct.observation import central_tissue_hu

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
        from ucadi.ct import enhancement
        from ucadi.ct.observation import lung_and_body_mm2

        self.edges.append(correlation(enhancement.edges(volume.hu), enhancement.edges(result.hu)))
        lungs = [float(lung_and_body_mm2(one)[0].sum()) for one in (volume, result)]
        if lungs[0] > 0:
            self.lung.append(lungs[1] / lungs[0])


def _result(kind: str, before: _Collected, after: _Collected, goal: _Collected) -> TranslateEvaluateResult:
    share = Figure(median(before.shares), median(after.shares), median(goal.shares))
    unit = units(np.concatenate([*before.features, *goal.features]))
    return TranslateEvaluateResult(
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


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
