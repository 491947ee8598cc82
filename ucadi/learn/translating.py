"""Training CycleGAN (Zhu et al. 2017): least-squares adversarial, cycle and identity losses, Adam, image pools.

As in `ucadi.learn.training`, nothing is read from torch's global generators: a training goes on after an
interruption at any step and ends with the same bits, on one CPU with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ucadi.errors import CapacityError, FormatError, MismatchError
from ucadi.learn.cyclegan import CycleGAN
from ucadi.learn.loading import made_ahead
from ucadi.learn.memory import out_of_memory_explained
from ucadi.learn.network import copies, fill, load_arrays, state_arrays
from ucadi.learn.translation import (
    CONTRAST,
    KINDS,
    NONCONTRAST,
    ImageStep,
    Losses,
    TranslationRecipe,
    TranslationRecord,
    TranslationState,
    image_steps,
    learning_rate,
    step_rng,
)
from ucadi.progress import track

Image = Callable[[str, int, int, np.random.Generator | None], NDArray[np.float32]]
"""From a kind, a case and a slice to the image (depth, H, W), varied at random by the generator if there is one.

A pure function, called from another thread."""

OTHER = {NONCONTRAST: CONTRAST, CONTRAST: NONCONTRAST}


@dataclass(frozen=True)
class TranslationHooks:
    """Who is told. `report` gets all records after each epoch, `show` the model and how many epochs it has had.

    `checkpoint` gets copies of the state after each epoch and, once `checkpoint_seconds` have gone by, after a step.
    """

    report: Callable[[Sequence[TranslationRecord]], None] | None = None
    show: Callable[[CycleGAN, int], None] | None = None
    checkpoint: Callable[[TranslationState], None] | None = None
    checkpoint_seconds: float = math.inf


def train_cyclegan(
    model: CycleGAN,
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
        run = _Run(model, image, recipe, hooks or TranslationHooks(), resume)
        run.go(lengths)
    return run.records


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: CycleGAN,
        image: Image,
        recipe: TranslationRecipe,
        hooks: TranslationHooks,
        resume: TranslationState | None,
    ) -> None:
        self.model, self.image, self.recipe, self.hooks = model, image, recipe, hooks
        self.trainer = CycleGANTrainer(model, recipe, resume)
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


class CycleGANTrainer:
    """Trains `model` in place, step by step, from a state if one is given."""

    def __init__(self, model: CycleGAN, recipe: TranslationRecipe, resume: TranslationState | None) -> None:
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        a = model.architecture
        self.pools = {kind: ImagePool(recipe.pool_size, (a.depth, a.size, a.size)) for kind in KINDS}
        self.optimisers = [
            torch.optim.Adam(part.parameters(), recipe.learning_rate, betas=(0.5, 0.999))
            for part in (model.generators, model.critics)
        ]
        self.updates = 0
        if resume:
            self._restore(resume)

    def step(self, step: ImageStep, batch: Mapping[str, Tensor]) -> Losses:
        """One step on images (N, depth, H, W) of each kind. CapacityError when the training diverges."""
        real = {k: x.to(self.device).contiguous(memory_format=torch.channels_last) for k, x in batch.items()}
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.recipe, step.position)
        make, judge = self.model.generators, self.model.critics
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            with _frozen(judge):
                made = {kind: make[kind](real[OTHER[kind]]) for kind in KINDS}
                adversarial = _sum(_squared(judge[kind](made[kind]), 1.0) for kind in KINDS)
                cycle = _sum(_absolute(make[kind](made[OTHER[kind]]), real[kind]) for kind in KINDS)
                identity = _sum(_absolute(make[kind](real[kind]), real[kind]) for kind in KINDS)
                total = adversarial + self.recipe.cycle * cycle + self.recipe.identity * identity
            self._update(0, total)
            rng = step_rng(self.recipe, step, 0)
            shown = {kind: self.pools[kind].exchange(made[kind].detach(), rng) for kind in KINDS}
            critic = _sum(
                (_squared(judge[kind](real[kind]), 1.0) + _squared(judge[kind](shown[kind]), 0.0)) / 2 for kind in KINDS
            )
            self._update(1, critic)
        self.updates += 1
        losses = Losses(*(float(loss.detach()) / 2 for loss in (adversarial, cycle, identity, critic)))
        if not all(map(math.isfinite, astuple(losses))):
            raise CapacityError(
                f"training diverged in epoch {step.epoch}: {losses}", hint="lower the learning rate, or use float32"
            )
        return losses

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimisers[which].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimisers[which].step()

    def moments(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
        """Copies of Adam's first and second moments by parameter; empty before the first step."""
        states = {name: self._optimiser(name).state[p] for name, p in self.model.named_parameters()}
        known = {name: state for name, state in states.items() if state}
        first, second = (
            copies({name: state[key] for name, state in known.items()}) for key in ("exp_avg", "exp_avg_sq")
        )
        return first, second

    def _optimiser(self, parameter: str) -> torch.optim.Adam:
        return self.optimisers[0 if parameter.startswith("generators.") else 1]

    def _restore(self, state: TranslationState) -> None:
        load_arrays(self.model, state.networks)
        self.updates = state.updates
        for kind in KINDS:
            self.pools[kind].restore(state.pools[kind])
        if not self.updates:
            return
        parameters = dict(self.model.named_parameters())
        moments = []
        for arrays in (state.first, state.second):
            own = {name: torch.empty_like(p) for name, p in parameters.items()}
            fill(own, arrays, "the training state's moments do not fit")
            moments.append(own)
        for name, parameter in parameters.items():
            self._optimiser(name).state[parameter] = {
                "step": torch.tensor(float(self.updates)),
                "exp_avg": moments[0][name],
                "exp_avg_sq": moments[1][name],
            }


class ImagePool:
    """Made images that the critics are shown again, so that they do not forget (Shrivastava et al. 2017)."""

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        self.size, self.shape = size, shape
        self.images: list[Tensor] = []

    def exchange(self, made: Tensor, rng: np.random.Generator) -> Tensor:
        """Images (N, depth, H, W) to show: once the pool is full, half are older ones whose place the new take."""
        shown = []
        for image in made:
            if len(self.images) < self.size:
                self.images.append(image)
                shown.append(image)
            elif self.size and rng.random() < 0.5:
                place = int(rng.integers(self.size))
                shown.append(self.images[place])
                self.images[place] = image
            else:
                shown.append(image)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)

    def array(self) -> NDArray[np.float32]:
        """The images as one array, float32 (n, depth, H, W)."""
        return np.array([image.cpu().numpy() for image in self.images], np.float32).reshape(-1, *self.shape)

    def restore(self, images: NDArray[np.float32]) -> None:
        """Sets what `array` gave. MismatchError for images of another shape, or too many."""
        if len(images) > self.size or images.shape[1:] != self.shape:
            raise MismatchError(f"the training state's pool is {images.shape}, not up to {self.size} of {self.shape}")
        self.images = [torch.from_numpy(np.array(image)) for image in images]


@contextmanager
def _frozen(part: nn.Module) -> Iterator[None]:
    """No gradients of this part's own parameters, which would be thrown away."""
    part.requires_grad_(False)
    try:
        yield
    finally:
        part.requires_grad_(True)


def _sum(losses: Iterator[Tensor]) -> Tensor:
    first, second = losses
    return first + second


def _squared(judged: Tensor, wanted: float) -> Tensor:
    """The least-squares loss (Mao et al. 2017)."""
    return (judged - wanted).square().mean()


def _absolute(made: Tensor, wanted: Tensor) -> Tensor:
    return (made - wanted).abs().mean()
