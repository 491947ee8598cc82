"""ucadi train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from ucadi.commands import (
    BatchSize,
    DropRate,
    Force,
    LearningRate,
    LocalEpochs,
    Output,
    Part,
    PrecisionOption,
    Seed,
    SplitFile,
    TotalEpochs,
    WarmupEpochs,
    schedule_of,
)
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.fixedpoint import layout_of
from ucadi.fed.plan import Schedule
from ucadi.fed.update import Update, difference
from ucadi.formats import split as split_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights
from ucadi.rounds.round import Round
from ucadi.splitting import TEST

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset
    from ucadi.learn.training import Recipe


@dataclass(frozen=True)
class TrainResult:
    """The update made, and the loss and accuracy of each epoch."""

    update: Path
    site: str
    examples: int
    epochs: int
    loss: list[float]
    accuracy: list[float]
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.update}: {self.examples} examples x {self.epochs} epochs in {self.seconds:.1f} s, "
            f"loss {self.loss[0]:.3f} to {self.loss[-1]:.3f}, accuracy {self.accuracy[-1]:.2f}"
        )


def train(
    dataset: Annotated[Path, typer.Argument(help="The site's dataset, from preprocess.")],
    *,
    base: Annotated[Path, typer.Option(help="The weights to begin from.")],
    output: Output,
    site: Annotated[str, typer.Option(help="The site's name in the roster.")],
    plan: Annotated[Path | None, typer.Option(help="The round's signed plan, which sets all that follows.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The federation's signed roster, with a plan.")] = None,
    split: SplitFile = None,
    part: Part = None,
    first_epoch: Annotated[int, typer.Option(help="Epoch of the schedule to begin at, from 0.", min=0)] = 0,
    local_epochs: LocalEpochs = None,
    total_epochs: TotalEpochs = None,
    warmup_epochs: WarmupEpochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    drop_rate: DropRate = None,
    seed: Seed = None,
    precision: PrecisionOption = None,
    force: Force = False,
) -> TrainResult:
    """Train on a site's data and write what changed: the update, for aggregate or encrypt.

    In a federation the round's plan sets base and hyper-parameters for everyone. Without one, the options
    do, and apply makes the site's own model of the update.
    """
    from ucadi.formats import dataset as dataset_format
    from ucadi.learn import training
    from ucadi.learn.network import check_input, restore

    if part == TEST:
        raise UsageError("the test part is not for training", hint="--part trainval, or train-K for one fold")
    weights = weights_format.read(base)
    chosen = {
        "local_epochs": local_epochs,
        "total_epochs": total_epochs,
        "warmup_epochs": warmup_epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "drop_rate": drop_rate,
        "seed": seed,
        "precision": precision,
    }
    if plan is not None:
        if roster is None:
            raise UsageError("a plan is checked against its roster", hint="--roster")
        if first_epoch or any(value is not None for value in chosen.values()):
            raise UsageError("the plan sets the schedule", hint="leave out the options that the plan decides")
        this = Round.read(plan, roster)
        _check_round(this, weights, site, base)
        schedule, first_epoch = this.plan.schedule, this.plan.first_epoch
    else:
        schedule = schedule_of(**chosen)

    model = restore(weights.architecture, weights.arrays)
    with dataset_format.open(dataset) as whole:
        data = split_format.select(whole, split, part)
        check_input(model, data.size, dataset.name)
        labels = _labels(data)
        records = training.train(
            model,
            partial(_slab, data, schedule.seed),
            labels,
            _recipe(schedule),
            first_epoch=first_epoch,
            epochs=schedule.local_epochs,
        )
    deltas = difference(training.state_arrays(model), weights.arrays)
    update = Update(site, weights.digest, len(labels), schedule.local_epochs, deltas)
    update_format.write_update(output, update, force=force)
    return TrainResult(
        output,
        site,
        update.examples,
        update.epochs,
        [record.loss for record in records],
        [record.accuracy for record in records],
        sum(record.seconds for record in records),
    )


def _check_round(this: Round, weights: Weights, site: str, base: Path) -> None:
    if weights.digest != this.plan.base:
        raise MismatchError(
            f"{base.name}: digest {weights.digest[:8]}…, the plan begins from {this.plan.base[:8]}…",
            hint="use the weights that the round before ended with",
        )
    if site not in this.plan.sites:
        raise MismatchError(f"{site} is no site of this round", hint="sites: " + ", ".join(this.plan.sites))
    # the coordinator chose the ranges; a site trusts only what it computes itself
    headrooms = {
        planned.exponent - own.exponent
        for planned, own in zip(this.plan.layout.tensors, layout_of(weights.arrays, headroom=0).tensors, strict=True)
    }
    if len(headrooms) != 1:
        raise MismatchError("the plan's ranges are not those of its base", hint="ask the coordinator to open it again")


def _labels(data: Dataset) -> list[int]:
    labels = [int(label) for label in data.labels if label is not None]
    if len(labels) != len(data):
        raise FormatError(
            f"{data.path.name}: {len(data) - len(labels)} cases have no label", hint="train needs every case labelled"
        )
    return labels


def _slab(data: Dataset, seed: int, epoch: int, index: int) -> npt.NDArray[np.float32]:
    """One random sampling of a case for one epoch (paper, Methods)."""
    from ucadi.ct import sampling

    volume = data.volume(index).hu
    indices = sampling.slab_indices(len(volume), sampling.training_rng(seed, epoch, data.ids[index]))
    return sampling.slab(volume, indices)


def _recipe(schedule: Schedule) -> Recipe:
    from ucadi.learn.training import Recipe

    return Recipe(
        learning_rate=schedule.learning_rate,
        batch_size=schedule.batch_size,
        warmup_epochs=min(schedule.warmup_epochs, schedule.total_epochs),
        total_epochs=schedule.total_epochs,
        drop_rate=schedule.drop_rate,
        seed=schedule.seed,
        precision=schedule.precision,
    )
