"""Do heatmaps show the disease? Compares them with the lesions that phantoms are known to have, and prints tables.

    python examples/heatmaps_true.py DATASET MODEL MASKS LINKAGE

MASKS is what `ucadi phantom --lesion-masks` and LINKAGE what `ucadi preprocess --linkage` wrote. The diagnosis that is
explained is the case's own. `heatmaps-true.sh` makes all of it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ucadi.ct import sampling
from ucadi.ct.observation import body_mask, lung_mask
from ucadi.ct.placing import onto_grid
from ucadi.ct.reading import nifti
from ucadi.ct.volume import Volume
from ucadi.formats import dataset as dataset_format
from ucadi.formats import weights as weights_format
from ucadi.labels import Diagnosis
from ucadi.learn.heatmaps.gradcam import gradcam, place
from ucadi.learn.heatmaps.occlusion import occlusion
from ucadi.learn.heatmaps.randomisation import cascade
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import restore
from ucadi.progress import track
from ucadi.scoring.localisation import edge_map, energy, mean_interval, pointing, rank_correlation

NEAR_MM = 15.0
OCCLUDED_CASES = 36
RANDOMISED_CASES = 12
FINER = "blocks.dense2_2"
"""The last layer of twice the last one's resolution in each direction."""

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
    for layer in (None, FINER):
        values = gradcam(model, example.slabs, example.diagnosis, layer=layer).values
        yield "grad-cam" + (f", {layer}" if layer else ""), example.placed(values)
    yield "edges of the image", edge_map(example.volume.hu)
    lungs = lung_mask(example.volume, body_mask(example.volume)) | example.lesions
    yield "uniform in the lungs", lungs.astype(np.float32)
    yield "uniform", np.ones(lungs.shape, np.float32)


def occluded(model: Classifier, example: Example) -> Map:
    """By one sampling, as it asks the network hundreds of times."""
    once = example.indices[:1]
    fill = sampling.standardised(example.volume.hu, once, sampling.LUNG_HU)
    heatmaps = occlusion(model, example.slabs[:1], example.diagnosis, fill=fill)
    return place(heatmaps.values, once, len(example.volume.hu))


def show_truth(model: Classifier, cases: list[Example]) -> bool:
    """Prints the table; whether Grad-CAM's interval lies above what a blind guess hits."""
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    agreement: dict[str, list[float]] = defaultdict(list)
    for number, example in enumerate(track(cases, "cases")):
        found = dict(maps(model, example))
        second = occluded(model, example) if number < OCCLUDED_CASES else None
        if second is not None:
            for name, heatmap in found.items():
                agreement[name].append(rank_correlation(heatmap, second))
            found[f"occlusion ({OCCLUDED_CASES} cases)"] = second
        for name, heatmap in found.items():
            hit, near = (pointing(heatmap, example.lesions, example.volume.spacing_mm, mm) for mm in (0, NEAR_MM))
            scores[name].append((hit, near, energy(heatmap, example.lesions)))
    volume = np.mean([example.lesions.mean() for example in cases])
    print(f"{len(cases)} cases with a disease; lesions fill {volume:.1%} of the volume\n")
    print(f"{'':<30}{'pointing game':<20}{f'within {NEAR_MM:.0f} mm':<20}{'energy in lesions':<20}rank correlation")
    print(f"{'':<90}with occlusion")
    for name, rows in scores.items():
        columns = (_interval([row[i] for row in rows]) for i in range(3))
        agrees = f"{np.mean(agreement[name]):.2f}" if name in agreement else ""
        print(f"{name:<30}" + "".join(f"{column:<20}" for column in columns) + agrees)
    _, low, _ = mean_interval([hit for hit, _, _ in scores["grad-cam"]])
    return low > float(np.mean([hit for hit, _, _ in scores["uniform"]]))


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
    beats_chance = show_truth(model, cases)
    show_randomised(model, cases[:RANDOMISED_CASES])
    if not beats_chance:
        sys.exit("grad-cam points no better than chance")


if __name__ == "__main__":
    main()
