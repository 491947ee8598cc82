"""ucadi gradcam."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ucadi import filetypes
from ucadi._version import __version__
from ucadi.commands import Force
from ucadi.ct.statement import HeatmapDescription
from ucadi.errors import FormatError, MismatchError
from ucadi.files import new_folder, refuse_existing
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.hyperparameters import MAX_SEED
from ucadi.labels import LABELS, Diagnosis
from ucadi.learn.heatmaps.methods import GRAD_CAM, METHODS, Method
from ucadi.parts import Feature, require

if TYPE_CHECKING:
    from ucadi.ct.reading.instance import Instance
    from ucadi.ct.regions import Region
    from ucadi.formats.dataset import Dataset

MONTAGE = "montage.png"
HEATMAP = "heatmap.nii.gz"
CT = "ct.nii.gz"
REGIONS = "regions.json"
DICOM = "dicom"


@dataclass(frozen=True)
class GradcamResult:
    """The folder made, and what it shows."""

    folder: Path
    case: str
    diagnosis: str
    probabilities: dict[str, float]
    method: str
    layer: str | None
    regions: list[Region]
    dicom: int
    """How many DICOM objects were made."""

    def __str__(self) -> str:
        probabilities = ", ".join(f"{label} {p:.3f}" for label, p in self.probabilities.items())
        objects = f", {DICOM} with {self.dicom} objects" if self.dicom else ""
        return (
            f"{self.folder}: {MONTAGE}, {HEATMAP}, {CT}, {REGIONS}{objects}\n"
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
        str,
        typer.Option(help="grad-cam, as in the paper, or occlusion.", autocompletion=METHODS.names),
    ] = GRAD_CAM,
    layer: Annotated[
        str | None, typer.Option(help="The network's layer to look at [default: the last feature map].")
    ] = None,
    level: Annotated[
        float, typer.Option(help="Share of the maximum from which a region is listed.", min=0.01, max=1)
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the samplings.", min=0, max=MAX_SEED)] = 0,
    dicom: Annotated[
        Path | None,
        typer.Option(help="The case's own DICOM files (folder, .zip or .dcm); also make objects for a PACS."),
    ] = None,
    force: Force = False,
) -> GradcamResult:
    r"""Show where in a CT the network saw a diagnosis: a montage (PNG), heatmap and CT (NIfTI), and a list of regions.

    Grad-CAM of each of the five samplings, put back on the slices and averaged (paper, Fig. 3c). With `--dicom`, also
    pictures of every original slice, a parametric map and a segmentation, which refer to them, in the folder `dicom`.
    Research only, not for clinical use.

    Example:
        ucadi gradcam test.h5 --model base.weights --case 0000000000000000 \
            -o heatmap
    """
    require(Feature.NETWORKS, Feature.DATASETS, Feature.SCANS, Feature.PLOTS, where={Feature.HEATMAP_OBJECTS: dicom})
    from ucadi.ct import sampling
    from ucadi.ct.observation import midline_mm
    from ucadi.ct.reading import nifti
    from ucadi.ct.reading.scan import source_series
    from ucadi.ct.regions import regions
    from ucadi.formats import dataset as dataset_format
    from ucadi.learn import inference
    from ucadi.learn.heatmaps.gradcam import place
    from ucadi.learn.networks.registry import check_input, restore
    from ucadi.scoring.plots import montage_png

    if dicom is not None and not dicom.exists():
        raise FormatError(filetypes.no_folder(dicom, "a DICOM series"), hint="the case's own files are wanted")
    refuse_existing(output, force=force)
    chosen = None if diagnosis is None else Diagnosis.parse(diagnosis)
    make: Method = METHODS.load(method)
    weights = weights_format.read(model)
    network = restore(weights.architecture, weights.arrays)
    with dataset_format.open(dataset) as data:
        check_input(network, data.size, dataset.name)
        index = _find(data, case)
        volume, case, series_digest = data.volume(index), data.ids[index], data.series_digests[index]
        synthetic = data.synthetic[index] is not None
    with ExitStack() as opened:
        source = None if dicom is None else opened.enter_context(source_series(dicom, series_digest))
        indices = sampling.test_indices(len(volume.hu), seed, case)
        slabs = sampling.slabs(volume.hu, indices)
        (probabilities,) = inference.predict(network, [slabs])
        mean = probabilities.mean(axis=0)
        seen = Diagnosis(int(mean.argmax())) if chosen is None else chosen
        lung = sampling.standardised(volume.hu, indices, sampling.LUNG_HU)
        heatmaps = make(network, slabs, seen, fill=lung, layer=layer)
        heatmap = place(heatmaps.values, indices, len(volume.hu))
        by_label = {label: float(p) for label, p in zip(LABELS, mean, strict=True)}
        listed = regions(heatmap, volume.affine, level=level, middle_mm=midline_mm(volume))
        objects = 0
        with new_folder(output, force=force, mode=0o700) as folder:
            title = f"{'synthetic ' if synthetic else ''}case {case}: {seen.label}, probability {mean[seen]:.2f}"
            (folder / MONTAGE).write_bytes(
                montage_png(volume.hu, heatmap, title, method=method, pixel_mm=volume.spacing_mm[2])
            )
            nifti.write(folder / HEATMAP, heatmap.astype(np.float32), volume.affine)
            nifti.write(folder / CT, volume.hu, volume.affine)
            if source is not None:
                made_of = f"layer={layer or 'last'}", f"seed={seed}", f"case={case}"
                statement = HeatmapDescription(
                    seen.label, float(mean[seen]), method, file_digest(model), __version__, made_of
                )
                objects = _write_objects(folder / DICOM, source, heatmap, volume.affine, statement)
            result = GradcamResult(output, case, seen.label, by_label, method, layer, listed, objects)
            described = {name: value for name, value in asdict(result).items() if name != "folder"}
            described |= {"dataset": file_digest(dataset), "model": file_digest(model), "synthetic": synthetic}
            (folder / REGIONS).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return result


def _write_objects(
    folder: Path,
    instances: tuple[Instance, ...],
    heatmap: NDArray[np.float32],
    affine: NDArray[np.float64],
    says: HeatmapDescription,
) -> int:
    """Writes the DICOM objects about the source series and returns how many there are."""
    from ucadi.ct import heatmap_objects
    from ucadi.ct.overlay import Style
    from ucadi.labels import NOTICE
    from ucadi.scoring.plots import overlay_colours

    folder.mkdir()
    style = Style(overlay_colours(), says.title, NOTICE)
    heatmap_objects.write(folder, instances, heatmap, affine, says, style)
    return len(list(folder.iterdir()))


def _find(data: Dataset, case: str) -> int:
    """The index of the one case whose id begins with `case`."""
    found = [index for index, identifier in enumerate(data.ids) if identifier.startswith(case)]
    if len(found) != 1:
        raise MismatchError(
            f"{data.path.name}: {len(found)} cases begin with {case!r}",
            hint=f"give more of the id; this dataset begins with {', '.join(data.ids[:3])}",
        )
    return found[0]
