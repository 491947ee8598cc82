"""Learning to translate between two kinds of CT, from unpaired slices, by one of several methods.

As in `ucadi.learn.loop`, nothing is read from torch's global generators: a training goes on after an
interruption at any step and ends with the same bits, on one CPU with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucadi.errors import FormatError, MismatchError
from ucadi.learn.loading import made_ahead
from ucadi.learn.memory import out_of_memory_explained
from ucadi.learn.networks.registry import state_arrays
from ucadi.progress import track
from ucadi.translation.aclgan import ACLGANTrainer
from ucadi.translation.councilgan import CouncilGANTrainer
from ucadi.translation.cyclegan import CycleGANTrainer
from ucadi.translation.networks import TranslationNetworks
from ucadi.translation.recipe import (
    ACL_GAN,
    COUNCIL_GAN,
    CYCLE_GAN,
    KINDS,
    ImageStep,
    Losses,
    TranslationRecipe,
    TranslationRecord,
    TranslationState,
    image_steps,
    learning_rate,
    step_rng,
)
from ucadi.translation.trainer import TranslationTrainer

Image = Callable[[str, int, int, np.random.Generator | None], NDArray[np.float32]]
"""From a kind, a case and a slice to the image (depth, H, W), varied at random by the generator if there is one.

A pure function, called from another thread."""

TRAINERS: Mapping[str, type[TranslationTrainer]] = {
    CYCLE_GAN: CycleGANTrainer,
    ACL_GAN: ACLGANTrainer,
    COUNCIL_GAN: CouncilGANTrainer,
}
"""By `TranslatorArchitecture.method`."""


@dataclass(frozen=True)
class TranslationHooks:
    """Who is told. `report` gets all records after each epoch, `show` the model and how many epochs it has had.

    `checkpoint` gets copies of the state after each epoch and, once `checkpoint_seconds` have gone by, after a step.
    """

    report: Callable[[Sequence[TranslationRecord]], None] | None = None
    show: Callable[[TranslationNetworks, int], None] | None = None
    checkpoint: Callable[[TranslationState], None] | None = None
    checkpoint_seconds: float = math.inf


def train_translator(
    model: TranslationNetworks,
    image: Image,
    lengths: Mapping[str, Sequence[int]],
    recipe: TranslationRecipe,
    *,
    resume: TranslationState | None = None,
    hooks: TranslationHooks | None = None,
) -> list[TranslationRecord]:
    """Trains `model` in place on cases of each kind with `lengths[kind]` slices, and gives the records of all epochs.

    With a state that the checkpoint hook was given as `resume`, and all else equal, model and records are bit for
    bit those of a training without an interruption. Raises FormatError for a kind without cases, MismatchError for
    a state that does not fit, CapacityError when the training diverges or there is not memory enough.
    """
    for kind in KINDS:
        if not lengths[kind]:
            raise FormatError(f"no {kind} cases to train on")
    if resume and resume.next_epoch > recipe.total_epochs:
        raise MismatchError(f"training state: it continues at epoch {resume.next_epoch} of {recipe.total_epochs}")
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False), out_of_memory_explained():
        run = _TranslationRun(model, image, recipe, hooks or TranslationHooks(), resume)
        run.go(lengths)
    return run.records


class _TranslationRun:
    """A training under way."""

    def __init__(
        self,
        model: TranslationNetworks,
        image: Image,
        recipe: TranslationRecipe,
        hooks: TranslationHooks,
        resume: TranslationState | None,
    ) -> None:
        self.model, self.image, self.recipe, self.hooks = model, image, recipe, hooks
        self.trainer = TRAINERS[model.architecture.method](model, recipe, resume)
        self.records = list(resume.records) if resume else []
        self.losses = list(resume.losses) if resume else []
        self.next = (resume.next_epoch, resume.next_step) if resume else (0, 0)

    def go(self, lengths: Mapping[str, Sequence[int]]) -> None:
        epoch, done = self.next
        epochs = range(epoch, self.recipe.total_epochs)
        plan = [step for e in epochs for step in image_steps(self.recipe, e, lengths)][done:]
        saved = time.monotonic()
        with closing(made_ahead(self._load, plan)) as batches:
            for step, batch in track(batches, "translation steps", len(plan)):
                self.losses.append(self.trainer.step(step, batch))
                if step.last:
                    self._end_epoch(step)
                elif self.hooks.checkpoint and time.monotonic() - saved >= self.hooks.checkpoint_seconds:
                    self._save(step.epoch, step.number + 1)
                    saved = time.monotonic()

    def _load(self, step: ImageStep) -> dict[str, Tensor]:
        """A step's images, (N, depth, H, W) of each kind."""
        batch = {}
        for purpose, kind in enumerate(KINDS, start=1):
            rng = step_rng(self.recipe, step, purpose) if self.recipe.augment else None
            images = np.stack([self.image(kind, case, index, rng) for case, index in step.places[kind]])
            batch[kind] = torch.from_numpy(images)
        return batch

    def _end_epoch(self, step: ImageStep) -> None:
        means = np.mean([astuple(losses) for losses in self.losses], axis=0)
        rate = learning_rate(self.recipe, step.position)
        self.records.append(TranslationRecord(step.epoch, rate, Losses(*map(float, means))))
        self.losses = []
        if self.hooks.report:
            self.hooks.report(self.records)
        if self.hooks.show:
            self.hooks.show(self.model, step.epoch + 1)
        if self.hooks.checkpoint:
            self._save(step.epoch + 1, 0)

    def _save(self, next_epoch: int, next_step: int) -> None:
        assert self.hooks.checkpoint is not None
        first, second = self.trainer.moments()
        self.hooks.checkpoint(
            TranslationState(
                next_epoch,
                next_step,
                self.trainer.updates,
                state_arrays(self.model),
                first,
                second,
                {kind: pool.array() for kind, pool in self.trainer.pools.items()},
                tuple(self.losses),
                tuple(self.records),
            )
        )
