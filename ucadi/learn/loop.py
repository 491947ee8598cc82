"""Local training (paper, Methods: model architecture and training): SGD, warm-up and cosine, weighted cross-entropy.

All randomness follows from (seed, epoch, step), and nothing is read from torch's global generators: an
epoch can be run again, or after an interruption at any step, and gives the same bits on one machine with
one number of threads.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.hyperparameters import Recipe
from ucadi.learn.distributed import ALONE, Group
from ucadi.learn.inference import predict
from ucadi.learn.loading import made_ahead
from ucadi.learn.memory import out_of_memory_explained
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import checked_slab, load_arrays, state_arrays
from ucadi.learn.privacy import check_private
from ucadi.learn.recipe import Step, learning_rate, steps
from ucadi.learn.state import Arrays, EpochRecord, TrainingState
from ucadi.learn.step import Trainer
from ucadi.progress import track

Slab = Callable[[int, int], NDArray[np.float32]]
"""From an epoch and the index of a case to its slab (1, 16, H, W); a pure function, called from another thread."""

Score = Callable[[Sequence[int], NDArray[np.float32]], float | None]
"""From diagnoses (cases,) and probabilities (cases, 4) to their AUC, None where it has none."""


@dataclass(frozen=True)
class Validation:
    """Cases that are looked at after each epoch, one sampling each (paper, Methods).

    `keep_best` ends the training with the model of the epoch with the highest AUC, of equals the lowest
    loss; `patience` ends it when as many epochs in a row were no better than the best before.
    """

    slab: Slab
    labels: Sequence[int]
    keep_best: bool = False
    patience: int | None = None


@dataclass(frozen=True)
class Hooks:
    """Who is told. `score` gives the records their AUC; `report` gets all records after each epoch.

    `checkpoint` gets copies of the state after each epoch and, once `checkpoint_seconds` have gone by, after a step.
    """

    score: Score | None = None
    report: Callable[[Sequence[EpochRecord]], None] | None = None
    checkpoint: Callable[[TrainingState], None] | None = None
    checkpoint_seconds: float = math.inf


def train(
    model: Classifier,
    slab: Slab,
    labels: Sequence[int],
    recipe: Recipe,
    *,
    first_epoch: int,
    epochs: int,
    validation: Validation | None = None,
    resume: TrainingState | None = None,
    hooks: Hooks | None = None,
    group: Group = ALONE,
) -> list[EpochRecord]:
    """Trains `model` in place for `epochs` epochs of the recipe's schedule, the first being `first_epoch`.

    Case i has the diagnosis `labels[i]`; a diagnosis may have no cases. With a state that the checkpoint
    hook was given as `resume`, and all else equal, model and records are bit for bit those of a training without
    an interruption.

    Raises FormatError for no cases or a slab with NaN, MismatchError for shapes, labels or states that do
    not fit the model, UsageError for epochs beyond the schedule, CapacityError when the training diverges or
    there is not memory enough. With a group, every process calls this with the same arguments, but for the hooks.
    """
    _check(model.architecture, labels, recipe, first_epoch, first_epoch + epochs, resume)
    if validation:
        _check_labels(model.architecture, validation.labels)
    # On a CPU every operation of the network gives the same bits again; on a GPU cuDNN has to be asked to.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False), out_of_memory_explained():
        run = _Run(model, slab, labels, recipe, validation, hooks or Hooks(), resume, group)
        run.go(resume.next_epoch if resume else first_epoch, first_epoch + epochs)
    return run.records


class _Run:
    """A training under way: the trainer, the records so far, and what the epoch has given until now."""

    def __init__(
        self,
        model: Classifier,
        slab: Slab,
        labels: Sequence[int],
        recipe: Recipe,
        validation: Validation | None,
        hooks: Hooks,
        resume: TrainingState | None,
        group: Group,
    ) -> None:
        state = resume or TrainingState(0, {})
        self.secret_seed = state.secret_seed
        if recipe.noise:
            if group.size > 1:
                raise UsageError("a private training is of one process", hint="run it without torchrun")
            check_private(model.architecture.norm, recipe)
            if self.secret_seed is None:
                self.secret_seed = secrets.randbits(128)
        self.model, self.slab, self.labels, self.recipe = model, slab, labels, recipe
        self.validation, self.hooks, self.group = validation, hooks, group
        self.trainer = Trainer(model, recipe, len(labels), resume, group)
        self.records = list(state.records)
        self.best: Arrays = state.best
        self.losses = list(state.losses)
        self.probabilities = list(state.probabilities)
        self.done = state.next_step

    def _steps(self, epoch: int) -> list[Step]:
        return steps(self.recipe, epoch, self.labels, self.secret_seed)

    def go(self, epoch: int, end: int) -> None:
        model, saved = self.model, time.monotonic()
        plan = [step for e in range(epoch, end) for step in self._steps(e)][self.done :]
        if self._has_converged():
            plan = []
        model.train()
        with closing(made_ahead(self._load, plan)) as batches:
            for step, (x, y) in track(batches, "training steps", len(plan)):
                loss, probabilities = self.trainer.step(step, x, y)
                self.losses.append(loss)
                self.probabilities.extend(probabilities)
                if step.last:
                    self._end_epoch(step)
                    if self._has_converged():
                        break
                elif self.hooks.checkpoint and time.monotonic() - saved >= self.hooks.checkpoint_seconds:
                    self._save(step.epoch, step.number + 1)
                    saved = time.monotonic()
        model.drop(0.0, None)
        if self.validation and self.validation.keep_best:
            load_arrays(model, self.best)

    def _load(self, step: Step) -> tuple[Tensor, Tensor]:
        """This process's share of a step's batch: slabs (N, 1, 16, H, W) and diagnoses (N)."""
        architecture, share = self.model.architecture, self.group.share(step.cases)
        cases = [int(case) for case in step.cases[share.start : share.stop]]
        x = torch.empty((len(cases), 1, architecture.slices, architecture.size, architecture.size))
        for place, case in zip(x.numpy(), cases, strict=True):
            place[:] = checked_slab(self.slab(step.epoch, case), case, architecture)
        y = torch.tensor([self.labels[case] for case in cases], dtype=torch.int64)
        pinned = self.trainer.device.type == "cuda"  # such memory is copied to the GPU while this goes on
        return (x.pin_memory(), y.pin_memory()) if pinned else (x, y)

    def _end_epoch(self, step: Step) -> None:
        self.trainer.require_finite(step.epoch)
        epoch_steps = self._steps(step.epoch)
        labels = [self.labels[i] for one in epoch_steps for i in one.cases]
        weights = [sum(self.recipe.loss_weights[self.labels[i]] for i in one.cases) for one in epoch_steps]
        probabilities = np.array(self.probabilities, np.float32).reshape(len(labels), -1)  # (cases, classes)
        validation_loss, validation_auc = self._validate(step.epoch)
        record = EpochRecord(
            epoch=step.epoch,
            loss=float(np.average(self.losses, weights=weights)) if labels else 0.0,
            accuracy=float((probabilities.argmax(axis=1) == labels).mean()) if labels else 0.0,
            auc=self._score(labels, probabilities) if labels else None,
            learning_rate=learning_rate(self.recipe, step.position),
            validation_loss=validation_loss,
            validation_auc=validation_auc,
        )
        self.records.append(record)
        self.losses, self.probabilities = [], []
        if self.validation and self.validation.keep_best and best_epoch(self.records) is record:
            self.best = state_arrays(self.model)
        if self.hooks.report:
            self.hooks.report(self.records)
        if self.hooks.checkpoint:
            self._save(step.epoch + 1, 0)

    def _validate(self, epoch: int) -> tuple[float | None, float | None]:
        """Weighted cross-entropy and AUC of the validation set."""
        validation = self.validation
        if validation is None:
            return None, None
        slabs = (validation.slab(epoch, index)[np.newaxis] for index in range(len(validation.labels)))
        probabilities = np.concatenate(list(predict(self.model, slabs)))  # (cases, classes)
        self.model.train()
        auc = self._score(validation.labels, probabilities)
        if auc is None and (validation.keep_best or validation.patience):
            raise FormatError(
                "the validation set has no AUC to choose the best epoch by",
                hint="it takes cases of two diagnoses at least",
            )
        right = probabilities[np.arange(len(probabilities)), list(validation.labels)]
        weights = [self.recipe.loss_weights[label] for label in validation.labels]
        tiny = np.finfo(np.float32).tiny
        return float(np.average(-np.log(np.maximum(right, tiny, dtype=np.float64)), weights=weights)), auc

    def _score(self, labels: Sequence[int], probabilities: NDArray[np.float32]) -> float | None:
        return self.hooks.score(labels, probabilities) if self.hooks.score else None

    def _has_converged(self) -> bool:
        patience = self.validation.patience if self.validation else None
        if patience is None or not self.records:
            return False
        return self.records[-1].epoch - best_epoch(self.records).epoch >= patience

    def _save(self, next_epoch: int, next_step: int) -> None:
        assert self.hooks.checkpoint is not None
        arrays, momentum, anchor = self.trainer.arrays()
        classes = self.model.architecture.classes
        state = TrainingState(
            next_epoch=next_epoch,
            arrays=arrays,
            momentum=momentum,
            anchor=anchor,
            best=self.best,
            next_step=next_step,
            losses=tuple(self.losses),
            probabilities=np.array(self.probabilities, np.float32).reshape(-1, classes),
            records=tuple(self.records),
            secret_seed=self.secret_seed,
        )
        self.hooks.checkpoint(state)


def best_epoch(records: Sequence[EpochRecord]) -> EpochRecord:
    """The first of the records with the highest AUC on the validation set, and of those the lowest loss."""
    return max(records, key=lambda record: (record.validation_auc or 0.0, -(record.validation_loss or 0.0)))


def _check(
    architecture: Architecture,
    labels: Sequence[int],
    recipe: Recipe,
    first_epoch: int,
    last_epoch: int,
    resume: TrainingState | None,
) -> None:
    if len(labels) == 0:
        raise FormatError("no cases to train on")
    classes = architecture.classes
    if len(recipe.loss_weights) != classes:
        raise MismatchError(f"recipe: {len(recipe.loss_weights)} loss weights for {classes} classes")
    _check_labels(architecture, labels)
    if not 0 <= first_epoch <= last_epoch <= recipe.total_epochs:
        raise UsageError(
            f"epochs {first_epoch} to {last_epoch} are not all in the schedule of {recipe.total_epochs}",
            hint="set total_epochs to the epochs of all rounds together",
        )
    if resume and not first_epoch <= resume.next_epoch <= last_epoch:
        raise MismatchError(
            f"training state: it continues at epoch {resume.next_epoch}, "
            f"but this training is epochs {first_epoch} to {last_epoch}",
            hint="start afresh, or resume with the options of the interrupted run",
        )


def _check_labels(architecture: Architecture, labels: Sequence[int]) -> None:
    for case, label in enumerate(labels):
        if not 0 <= label < architecture.classes:
            raise MismatchError(f"case {case}: label {label}, the network knows 0 to {architecture.classes - 1}")
