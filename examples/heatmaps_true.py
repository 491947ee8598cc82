"""Do heatmaps show the disease? Compares them with the lesions that phantoms are known to have, and prints tables.

    python examples/heatmaps_true.py DATASET MODEL MASKS LINKAGE

MASKS is what `ucadi phantom --lesion-masks` and LINKAGE what `ucadi preprocess --linkage` wrote. The diagnosis that is
explained is the case's own. `heatmaps-true.sh` makes all of it.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ucadi.ct import nifti, sampling
from ucadi.ct.observation import body_mask, lung_mask
from ucadi.ct.placing import onto_grid
from ucadi.ct.volume import Volume
from ucadi.formats import dataset as dataset_format
from ucadi.formats import weights as weights_format
from ucadi.labels import Diagnosis
from ucadi.learn.classifier import Classifier
from ucadi.learn.gradcam import METHODS, gradcam, place
from ucadi.learn.network import restore
from ucadi.learn.occlusion import occlusion
from ucadi.learn.randomisation import cascade
from ucadi.progress import track
from ucadi.scoring.localisation import edge_map, energy, mean_interval, pointing, rank_correlation

NEAR_MM = 15.0
RANDOMISED_CASES = 12
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A case with a disease, and where it truly is."""

    volume: Volume
    diagnosis: Diagnosis
    lesions: NDArray[np.bool_]
    indices: NDArray[np.intp]

    @property
    def slabs(self) -> Map:
        return sampling.slabs(self.volume.hu, self.indices)

    def placed(self, values: Map) -> Map:
        return place(values, self.indices, len(self.volume.hu))


def examples(dataset: Path, masks: Path, linkage: Path) -> Iterator[Example]:
    with linkage.open(newline="") as file:
        folders = {row["id"]: row["case"] for row in csv.DictReader(file) if row["used"] == "yes"}
    with dataset_format.open(dataset) as data:
        for index, (case, label) in enumerate(zip(data.ids, data.labels, strict=True)):
            if label in (None, Diagnosis.HEALTHY):
                continue
            volume = data.volume(index)
            mask, affine = nifti.read_mask(masks / f"{folders[case]}.nii.gz")
            lesions = onto_grid(mask, affine, volume.affine, volume.hu.shape) >= 0.5
            if lesions.any():
                yield Example(volume, label, lesions, sampling.test_indices(len(volume.hu), 0, case))


def maps(model: Classifier, example: Example) -> Iterator[tuple[str, Map]]:
    """All heatmaps of a case by name, and those of who knows nothing of the network."""
    for method in METHODS:
        yield method, example.placed(gradcam(model, example.slabs, example.diagnosis, method).values)
    once = example.indices[:1]  # one sampling, for occlusion asks the network hundreds of times
    fill = sampling.standardised(example.volume.hu, once, sampling.LUNG_HU)
    covered = occlusion(model, example.slabs[:1], example.diagnosis, fill)
    yield "occlusion", place(covered.values, once, len(example.volume.hu))
    yield "edges of the image", edge_map(example.volume.hu)
    lungs = lung_mask(example.volume, body_mask(example.volume)) | example.lesions
    yield "uniform in the lungs", lungs.astype(np.float32)
    yield "uniform", np.ones(lungs.shape, np.float32)


def show_truth(model: Classifier, cases: list[Example]) -> None:
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    agreement: dict[str, list[float]] = defaultdict(list)
    for example in track(cases, "cases"):
        spacing = example.volume.spacing_mm
        found = dict(maps(model, example))
        for name, heatmap in found.items():
            hit, near = (pointing(heatmap, example.lesions, spacing, mm) for mm in (0, NEAR_MM))
            scores[name].append((hit, near, energy(heatmap, example.lesions)))
            agreement[name].append(rank_correlation(heatmap, found["occlusion"]))
    volume = np.mean([example.lesions.mean() for example in cases])
    print(f"{len(cases)} cases with a disease; lesions fill {volume:.1%} of the volume\n")
    print(f"{'':<22}{'pointing game':<20}{f'within {NEAR_MM:.0f} mm':<20}{'energy in lesions':<20}rank correlation")
    print(f"{'':<82}with occlusion")
    for name, rows in scores.items():
        columns = (_interval([row[i] for row in rows]) for i in range(3))
        print(f"{name:<22}" + "".join(f"{column:<20}" for column in columns) + f"{np.mean(agreement[name]):.2f}")


def show_randomised(model: Classifier, cases: list[Example]) -> None:
    print(f"\nrank correlation of grad-cam with itself after layers were randomised ({len(cases)} cases)")
    before = [gradcam(model, e.slabs, e.diagnosis).values for e in cases]
    stages = list(cascade(model, seed=1))
    for number in sorted({0, *np.linspace(0, len(stages) - 1, 6).astype(int).tolist()}):
        name, lost = stages[number]
        after = [gradcam(lost, e.slabs, e.diagnosis).values for e in cases]
        correlations = [rank_correlation(a, b) for a, b in zip(before, after, strict=True)]
        what = f"{name} only" if number == 0 else f"{name} and all after it"
        print(f"  {what:<50}{_interval(correlations)}")


def _interval(values: list[float]) -> str:
    return "{:.2f} ({:.2f}..{:.2f})".format(*mean_interval(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("dataset", "model", "masks", "linkage"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    weights = weights_format.read(given.model)
    model = restore(weights.architecture, weights.arrays).eval()
    cases = list(examples(given.dataset, given.masks, given.linkage))
    show_truth(model, cases)
    show_randomised(model, cases[:RANDOMISED_CASES])


if __name__ == "__main__":
    main()
