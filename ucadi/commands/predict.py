"""ucadi predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from ucadi.commands import Device, Force, Part, SplitFile
from ucadi.errors import UsageError
from ucadi.files import make_folder
from ucadi.formats import predictions as predictions_format
from ucadi.formats import split as split_format
from ucadi.formats import weights as weights_format
from ucadi.formats.predictions import UNLABELLED, Predictions
from ucadi.hyperparameters import MAX_SEED
from ucadi.parts import Feature, how_to_install, require
from ucadi.progress import note, track

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset


@dataclass(frozen=True)
class PredictResult:
    """The predictions made, one file for each model."""

    predictions: tuple[Path, ...]
    cases: int
    samplings: int

    def __str__(self) -> str:
        return "\n".join(f"{path}: {self.cases} cases, {self.samplings} samplings each" for path in self.predictions)


def predict(
    dataset: Annotated[Path, typer.Argument(help="A dataset, from preprocess.")],
    *,
    model: Annotated[list[Path], typer.Option(help="The weights to predict with; once for each model.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write; of several models the folder for MODEL/DATASET.predictions."
        ),
    ],
    split: SplitFile = None,
    part: Part = None,
    seed: Annotated[int, typer.Option(help="Seed of the samplings.", min=0, max=MAX_SEED)] = 0,
    fast: Annotated[
        bool, typer.Option("--fast", help="Use folded norms, bfloat16 and OpenVINO where available.")
    ] = False,
    device: Device = "auto",
    force: Force = False,
) -> PredictResult:
    """Give each case its probabilities: five independent samplings of 16 slices, each kept.

    Their average is the diagnosis (paper, Methods); evaluate takes it. Several models see the same samplings.
    With --fast, probabilities may differ by a few hundredths.

    Example:
        ucadi predict test.h5 --model base.weights -o test.predictions
    """
    require(Feature.NETWORKS, Feature.DATASETS)
    if fast and Feature.OPENVINO.missing:
        note(f"--fast without OpenVINO, by torch alone; faster with: {how_to_install(Feature.OPENVINO.missing)}")
    from ucadi.ct.sampling import TEST_SAMPLINGS
    from ucadi.formats import dataset as dataset_format

    paths = _outputs(output, dataset, model)
    with dataset_format.open(dataset) as whole:
        data = split_format.select(whole, split, part)
        split_format.require_scans(data)
        for weights_path, path in zip(model, paths, strict=True):
            make_folder(path.parent)
            predictions_format.write(path, _predict(data, weights_path, seed, device, fast=fast), force=force)
        return PredictResult(paths, len(data), TEST_SAMPLINGS)


def _outputs(output: Path, dataset: Path, models: Sequence[Path]) -> tuple[Path, ...]:
    if len(models) == 1:
        return (output,)
    stems = [model.stem for model in models]
    if len(set(stems)) != len(stems):
        raise UsageError("two models of one name", hint="their predictions go to folders of the models' names")
    return tuple(output / stem / f"{dataset.stem}.predictions" for stem in stems)


def _predict(data: Dataset, model: Path, seed: int, device: str, *, fast: bool) -> Predictions:
    from ucadi.learn import engines, inference
    from ucadi.learn.distributed import own_device
    from ucadi.learn.networks.registry import check_input, restore

    weights = weights_format.read(model)
    network = restore(weights.architecture, weights.arrays).to(own_device(device))
    check_input(network, data.size, data.path.name)
    slabs = track(_slabs(data, seed), f"predicting with {model.stem[:16]}", total=len(data))
    return Predictions(
        weights.digest,
        data.digest,
        tuple(data.ids),
        tuple(data.patients),
        np.array([UNLABELLED if label is None else label for label in data.labels], dtype=np.int32),
        np.stack(list(inference.predict(network, slabs, engines.fastest(network) if fast else None))),
    )


def _slabs(data: Dataset, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """The independent samplings of each case, float32 (samplings, 1, 16, row, column)."""
    from ucadi.ct import sampling

    for index, case in enumerate(data.ids):
        volume = data.volume(index).hu
        yield sampling.slabs(volume, sampling.test_indices(len(volume), seed, case))
