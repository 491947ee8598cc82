"""ucadi gradcam."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ucadi.commands import Force
from ucadi.errors import MismatchError
from ucadi.formats import weights as weights_format
from ucadi.formats.output import new_folder
from ucadi.labels import LABELS, Diagnosis

if TYPE_CHECKING:
    from ucadi.ct.regions import Region
    from ucadi.formats.dataset import Dataset

MONTAGE = "montage.png"
HEATMAP = "heatmap.nii.gz"
CT = "ct.nii.gz"


@dataclass(frozen=True)
class GradcamResult:
    """The folder made, and what it shows."""

    folder: Path
    case: str
    diagnosis: str
    probabilities: dict[str, float]
    method: str
    regions: list[Region]

    def __str__(self) -> str:
        probabilities = ", ".join(f"{label} {p:.3f}" for label, p in self.probabilities.items())
        return (
            f"{self.folder}: {MONTAGE}, {HEATMAP}, {CT}\n"
            f"case {self.case}, where {self.diagnosis} was seen ({probabilities})"
            + "".join(f"\n  {region}" for region in self.regions)
        )


def gradcam(
    dataset: Annotated[Path, typer.Argument(help="A dataset, from preprocess.")],
    *,
    model: Annotated[Path, typer.Option(help="The weights to explain.")],
    case: Annotated[str, typer.Option(help="The case's id in the dataset, or the beginning of it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    diagnosis: Annotated[
        str | None, typer.Option(help="The diagnosis to explain [default: the most probable].")
    ] = None,
    method: Annotated[
        str, typer.Option(help="grad-cam, the paper's; or grad-cam++, hires-cam, layer-cam.")
    ] = "grad-cam",
    layer: Annotated[
        str | None, typer.Option(help="The network's layer to look at [default: the last that has places].")
    ] = None,
    level: Annotated[
        float, typer.Option(help="Share of the maximum from which a region is listed.", min=0.01, max=1)
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the samplings.", min=0)] = 0,
    force: Force = False,
) -> GradcamResult:
    """Show where in a CT the network saw a diagnosis: a montage (PNG), heatmap and CT (NIfTI), and a list of regions.

    Grad-CAM of each of the five samplings, put back on the slices and averaged (paper, Fig. 3c).
    Research only, not for clinical use.
    """
    from ucadi.ct import nifti, sampling
    from ucadi.ct.regions import regions
    from ucadi.formats import dataset as dataset_format
    from ucadi.learn import gradcam as explanation
    from ucadi.learn import inference
    from ucadi.learn.network import check_input, restore
    from ucadi.scoring.plots import montage_png

    chosen = None if diagnosis is None else Diagnosis.parse(diagnosis)
    weights = weights_format.read(model)
    network = restore(weights.architecture, weights.arrays)
    with dataset_format.open(dataset) as data:
        check_input(network, data.size, dataset.name)
        index = _find(data, case)
        volume, case = data.volume(index), data.ids[index]
    indices = sampling.test_indices(len(volume.hu), seed, case)
    slabs = sampling.slabs(volume.hu, indices)
    (probabilities,) = inference.predict(network, [slabs])
    mean = probabilities.mean(axis=0)
    seen = Diagnosis(int(mean.argmax())) if chosen is None else chosen
    heatmaps = explanation.gradcam(network, slabs, seen, method, layer)
    heatmap = explanation.place(heatmaps.values, indices, len(volume.hu))
    title = f"case {case}: {seen.label}, probability {mean[seen]:.2f}"
    with new_folder(output, force=force) as folder:
        (folder / MONTAGE).write_bytes(montage_png(volume.hu, heatmap, title))
        nifti.write(folder / HEATMAP, heatmap.astype(np.float32), volume.affine)
        nifti.write(folder / CT, volume.hu, volume.affine)
    by_label = {label: float(p) for label, p in zip(LABELS, mean, strict=True)}
    listed = regions(heatmap, volume.affine, level=level)
    return GradcamResult(output, case, seen.label, by_label, method, listed)


def _find(data: Dataset, case: str) -> int:
    """The index of the one case whose id begins with `case`."""
    found = [index for index, identifier in enumerate(data.ids) if identifier.startswith(case)]
    if len(found) != 1:
        raise MismatchError(
            f"{data.path.name}: {len(found)} cases begin with {case!r}",
            hint=f"give more of the id; this dataset begins with {', '.join(data.ids[:3])}",
        )
    return found[0]
