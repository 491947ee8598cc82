"""ucadi train."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import (
    CHECKPOINT_SECONDS,
    CheckpointEvery,
    CheckpointFile,
    Device,
    Force,
    Output,
    Part,
    RecipeFile,
    Settings,
    SplitFile,
    refuse_unused,
)
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.averaging import apply_deltas
from ucadi.fed.norms import with_norms
from ucadi.fed.optimisers import FEDAVG
from ucadi.fed.update import Arrays, Privacy, Update, bounded, difference
from ucadi.files import refuse_existing
from ucadi.formats import checkpoint as checkpoint_format
from ucadi.formats import split as split_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import file_digest
from ucadi.formats.schedules import RoundRecipe, read_recipe
from ucadi.formats.weights import Weights
from ucadi.hyperparameters import MAX_EPOCHS, Recipe
from ucadi.identity import check_name
from ucadi.labels import LABELS
from ucadi.parts import Feature, require
from ucadi.rounds.round import Round
from ucadi.scoring.metrics import macro_auc
from ucadi.workflows.reporting import TrainingReport
from ucadi.workflows.training import TrainingCases, check_round, identity

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset
    from ucadi.learn.loop import Validation


@dataclass(frozen=True)
class TrainResult:
    """What was made, and the loss and accuracy of each epoch; AUCs are None where there was nothing to tell apart.

    Either an `update` of a `site`, or the `weights` of a training without one. `missing` are the diagnoses that no
    case of the training had; `synthetic` counts the examples that no scanner made.
    """

    update: Path | None
    weights: Path | None
    site: str | None
    examples: int
    epochs: int
    loss: list[float]
    accuracy: list[float]
    seconds: float
    privacy: Privacy | None = None
    auc: list[float | None] = field(default_factory=list)
    validation_auc: list[float | None] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    synthetic: int = 0
    kept_epoch: int | None = None
    """The epoch that --keep-best ended with, counted from 1."""

    def __str__(self) -> str:
        return (
            f"{self.update or self.weights}: {self.examples} examples{_made(self.synthetic)} x {self.epochs} epochs "
            f"in {self.seconds:.1f} s, loss {self.loss[0]:.3f} to {self.loss[-1]:.3f}, accuracy {self.accuracy[-1]:.2f}"
            + (f"\nkept epoch {self.kept_epoch}, the best on the validation set" if self.kept_epoch else "")
            + (f"\nno case of {', '.join(self.missing)}" if self.missing else "")
            + _spent(self.privacy)
        )


def train(
    dataset: Annotated[Path, typer.Argument(help="The site's dataset, from preprocess.")],
    *,
    base: Annotated[Path, typer.Option(help="The weights to begin from.")],
    output: Output,
    site: Annotated[
        str | None, typer.Option(help="The site's name in the roster: its update is written, not a model of its own.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="The round's signed plan, which sets all that follows.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The federation's signed roster, with a plan.")] = None,
    split: SplitFile = None,
    part: Part = None,
    first_epoch: Annotated[
        int, typer.Option(help="Epoch of the schedule to begin at, from 0.", min=0, max=MAX_EPOCHS)
    ] = 0,
    recipe: RecipeFile = None,
    settings: Settings = None,
    local_norms: Annotated[
        Path | None, typer.Option(help="This site's previous update, for rounds with local norms (FedBN).")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="A dataset to measure after each epoch; or --validation-part.")
    ] = None,
    validation_part: Annotated[
        str | None, typer.Option(metavar="PART", help="Validate on this part of --split, for example val-1.")
    ] = None,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="End with the epoch of the highest AUC on the validation set.")
    ] = False,
    patience: Annotated[
        int | None,
        typer.Option(help="End after so many epochs without a better one (early stopping).", min=1, max=MAX_EPOCHS),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Folder for epochs.csv and curve.png, anew after each epoch.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard.")] = None,
    device: Device = "auto",
    save_memory: Annotated[
        bool, typer.Option("--save-memory", help="Recompute activations in the backward pass (gradient checkpointing).")
    ] = False,
    checkpoint: CheckpointFile = None,
    checkpoint_every: CheckpointEvery = None,
    force: Force = False,
) -> TrainResult:
    r"""Train on a site's data: without --site a model of one's own, with it an update for aggregate or encrypt.

    An update is what changed from the base. In a federation the round's plan sets base and hyper-parameters for
    everyone; without one, the options do. With --checkpoint, a training that was stopped
    goes on from there when the same command is given again, and ends with the same bytes. Under torchrun,
    its processes train as one, each on its share of every batch.

    Example:
        ucadi train site-a.h5 --base base.weights --site site-a \
            --plan plan.json --roster federation.json -o site-a.update
    """
    require(
        Feature.NETWORKS,
        Feature.DATASETS,
        Feature.STATISTICS,
        where={Feature.PLOTS: log, Feature.TENSORBOARD: tensorboard},
    )
    from ucadi.formats import dataset as dataset_format
    from ucadi.learn.distributed import joined, own_device
    from ucadi.learn.loop import Hooks, best_epoch
    from ucadi.learn.loop import train as train_network
    from ucadi.learn.networks.registry import check_input, restore, state_arrays

    if part is not None:
        split_format.require_training(part)
    if site is not None:
        check_name(site)
    if checkpoint is None:
        refuse_unused({"--checkpoint-every": checkpoint_every}, "there is no --checkpoint to write")
    for path in (output, checkpoint or output):
        refuse_existing(path, force=force or path == checkpoint)
    weights = weights_format.read(base)
    begins: Arrays = weights.arrays
    round_: Round | None = None
    if plan is not None:
        if roster is None:
            raise UsageError("--plan: a plan is checked against its roster", hint="--roster federation.json")
        if site is None:
            raise UsageError("a round takes a site's update", hint="--site, with the site's name in the roster")
        if first_epoch or recipe or settings:
            raise UsageError("the plan sets the schedule", hint="leave out --first-epoch, --recipe and --set")
        round_ = Round.read(plan, roster)
        check_round(round_, weights, site, base.name)
        schedule, first_epoch = round_.plan.schedule, round_.plan.first_epoch
        if keep_best or patience:
            raise UsageError("the plan says how long to train", hint="leave out --keep-best and --patience")
        if local_norms is not None:
            previous = update_format.read_update(local_norms)
            begins = with_norms(weights.arrays, weights.arrays, previous, round_.plan.layout)
    else:
        refuse_unused({"--roster": roster}, "a roster goes with a plan")
        schedule = _alone(read_recipe(recipe, settings or ()), local_norms)
    if schedule.noise:
        require(Feature.PRIVACY)

    epochs = range(first_epoch, first_epoch + schedule.local_epochs)
    placed = own_device(device)
    model = restore(weights.architecture, begins).to(placed)
    model.saves_memory = save_memory
    with ExitStack() as opened:
        group = opened.enter_context(joined(placed))
        first = group.rank == 0
        whole = opened.enter_context(dataset_format.open(dataset))
        cases = TrainingCases(split_format.select(whole, split, part), schedule)
        if plan is None and len(set(cases.labels)) == 1:
            raise FormatError(
                f"{dataset.name}: all cases are {LABELS[cases.labels[0]]}, there is nothing to tell apart",
                hint="train on cases of another diagnosis too, or in a federation's round with --plan",
            )
        seen = _validation_data(whole, validation, split, validation_part, opened)
        for data in (cases.data, *seen):
            check_input(model, data.size, data.path.name)
        for data in seen:
            split_format.require_scans(data)
        check = _validation(cases, [TrainingCases(data, schedule) for data in seen], schedule, keep_best, patience)
        training = identity(
            weights,
            cases,
            schedule,
            epochs,
            norms=file_digest(local_norms) if local_norms else None,
            validation=[TrainingCases(data, schedule).digest for data in seen],
            keep_best=keep_best,
            patience=patience,
        )
        began = perf_counter()
        records = train_network(
            model,
            cases.slab,
            cases.labels,
            schedule,
            first_epoch=epochs.start,
            epochs=len(epochs),
            validation=check,
            resume=checkpoint_format.read(checkpoint, training) if checkpoint else None,
            hooks=Hooks(
                score=macro_auc,
                report=TrainingReport(schedule.total_epochs, log, tensorboard) if first else None,
                checkpoint=partial(checkpoint_format.write, checkpoint, training) if checkpoint and first else None,
                checkpoint_seconds=CHECKPOINT_SECONDS if checkpoint_every is None else checkpoint_every,
            ),
            group=group,
        )
        seconds = perf_counter() - began
    deltas = difference(state_arrays(model), weights.arrays)
    if schedule.update_norm is not None:
        deltas = bounded(deltas, schedule.update_norm)
    privacy = _privacy(schedule, len(cases.labels), epochs.stop)
    examples, done = len(cases.labels), len(records)
    if first:
        if site is not None:
            belongs = None if round_ is None else round_.plan_digest
            update = Update(site, weights.digest, examples, done, deltas, privacy, belongs)
            update_format.write_update(output, update, force=force)
        else:
            origin = {"base": weights.digest, "examples": examples, "epochs": done}
            if privacy:
                origin["privacy"] = asdict(privacy)
            own = Weights(apply_deltas(weights.arrays, deltas), weights.architecture, origin)
            weights_format.write(output, own, force=force)
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
    return TrainResult(
        None if site is None else output,
        output if site is None else None,
        site,
        examples,
        done,
        [record.loss for record in records],
        [record.accuracy for record in records],
        seconds,
        privacy,
        [record.auc for record in records],
        [record.validation_auc for record in records],
        cases.missing,
        len(cases.data) - len(cases.data.scans()),
        best_epoch(records).epoch + 1 if keep_best else None,
    )


def _made(synthetic: int) -> str:
    return f" ({synthetic} of them synthetic)" if synthetic else ""


def _validation_data(
    whole: Dataset, validation: Path | None, split: Path | None, part: str | None, opened: ExitStack
) -> list[Dataset]:
    """The dataset to look at after each epoch, if any is asked for."""
    from ucadi.formats import dataset as dataset_format

    if validation is not None and part is not None:
        raise UsageError("one validation set, not two", hint="--validation FILE or --validation-part PART")
    if validation is not None:
        return [opened.enter_context(dataset_format.open(validation))]
    return [] if part is None else [split_format.select(whole, split, part)]


def _validation(
    cases: TrainingCases, seen: list[TrainingCases], schedule: Recipe, keep_best: bool, patience: int | None
) -> Validation | None:
    from ucadi.learn.loop import Validation

    if not seen:
        if keep_best or patience:
            raise UsageError("what is best is seen on a validation set", hint="--validation or --validation-part")
        return None
    if schedule.noise and (keep_best or patience):
        raise UsageError("a choice by the validation set is not private", hint="leave out --keep-best and --patience")
    (held_out,) = seen
    both = set(held_out.data.patients) & set(cases.data.patients)
    if both:
        raise MismatchError(
            f"{len(both)} patients are in training and validation", hint="ucadi split divides by patient"
        )
    return Validation(held_out.fixed_slab, held_out.labels, keep_best, patience)


def _privacy(schedule: Recipe, cases: int, epochs: int) -> Privacy | None:
    """What all epochs up to these have spent: a site is taken to have been in every round."""
    if not schedule.noise or schedule.clip_norm is None:
        return None
    from ucadi.learn.privacy import epsilon

    spent = epsilon(schedule, cases, epochs, schedule.delta)
    return Privacy(spent, schedule.delta, schedule.noise, schedule.clip_norm)


def _spent(privacy: Privacy | None) -> str:
    if privacy is None:
        return ""
    return f"\nprivacy spent so far: epsilon {privacy.epsilon:.3g} at delta {privacy.delta:g}, for one scan"


def _alone(recipe: RoundRecipe, norms: Path | None) -> Recipe:
    """The schedule of a training without a plan, which has no round to share anything in."""
    if recipe.server != FEDAVG or recipe.local_norms or norms is not None:
        raise UsageError(
            "without a plan there are no others to share with", hint="leave out server, local_norms and --local-norms"
        )
    return recipe.schedule
