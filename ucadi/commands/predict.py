"""ucadi predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from ucadi.commands import Force, Output
from ucadi.formats import predictions as predictions_format
from ucadi.formats import weights as weights_format
from ucadi.formats.predictions import UNLABELLED, Predictions
from ucadi.progress import track

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset


@dataclass(frozen=True)
class PredictResult:
    """The predictions made."""

    predictions: Path
    cases: int
    samplings: int

    def __str__(self) -> str:
        return f"{self.predictions}: {self.cases} cases, {self.samplings} samplings each"


def predict(
    dataset: Annotated[Path, typer.Argument(help="A dataset, from preprocess.")],
    *,
    model: Annotated[Path, typer.Option(help="The weights to predict with.")],
    output: Output,
    seed: Annotated[int, typer.Option(help="Seed of the samplings.", min=0)] = 0,
    force: Force = False,
) -> PredictResult:
    """Give each case its probabilities: five independent samplings of 16 slices, each kept.

    Their average is the diagnosis (paper, Methods); evaluate takes it.
    """
    from ucadi.ct.sampling import TEST_SAMPLINGS
    from ucadi.formats import dataset as dataset_format
    from ucadi.learn import inference
    from ucadi.learn.network import check_input, restore

    weights = weights_format.read(model)
    network = restore(weights.architecture, weights.arrays)
    with dataset_format.open(dataset) as data:
        check_input(network, data.size, dataset.name)
        slabs = track(_slabs(data, seed), "predicting", total=len(data))
        probabilities = np.stack(list(inference.predict(network, slabs)))
        predictions = Predictions(
            weights.digest,
            data.digest,
            tuple(data.ids),
            tuple(data.patients),
            np.array([UNLABELLED if label is None else label for label in data.labels], dtype=np.int32),
            probabilities,
        )
    predictions_format.write(output, predictions, force=force)
    return PredictResult(output, len(predictions.cases), TEST_SAMPLINGS)


def _slabs(data: Dataset, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """The independent samplings of each case, float32 (samplings, 1, 16, row, column)."""
    from ucadi.ct import sampling

    for index, case in enumerate(data.ids):
        volume = data.volume(index).hu
        yield sampling.slabs(volume, sampling.test_indices(len(volume), seed, case))
