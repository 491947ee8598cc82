"""One step of learning a translation, and what changes from step to step: networks, Adam's moments, image pools."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ucadi.errors import CapacityError
from ucadi.learn.bfloat16 import keep_right
from ucadi.learn.networks.registry import copies, fill, load_arrays
from ucadi.translation.imagepool import ImagePool
from ucadi.translation.networks import Critic, Generator, TranslationNetworks
from ucadi.translation.recipe import (
    KINDS,
    ImageStep,
    Losses,
    TranslationRecipe,
    TranslationState,
    learning_rate,
    step_rng,
)

Images = dict[str, Tensor]
"""Of each kind images (N, depth, H, W)."""


def noise_for(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Standard normal noise (N, 1, H, W) for images (N, depth, H, W)."""
    values = rng.standard_normal((len(x), 1, *x.shape[2:]), dtype=np.float32)
    return torch.from_numpy(values).to(x.device)


@dataclass(frozen=True)
class Made:
    """What generators made in a step: the images, and the losses that they are held to."""

    images: dict[str, Images]
    adversarial: Tensor
    consistency: Tensor
    identity: Tensor


class TranslationTrainer(ABC):
    """Trains `model` in place, step by step, from a state if one is given. A method says what generators make and
    how critics are taught."""

    def __init__(
        self, model: TranslationNetworks, recipe: TranslationRecipe, resume: TranslationState | None = None
    ) -> None:
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        a = model.architecture
        if recipe.precision == "bfloat16":
            for network in model.modules():
                if isinstance(network, Generator | Critic):
                    images = torch.randn(
                        (2, network.channels, a.size, a.size), generator=torch.Generator().manual_seed(0)
                    )
                    keep_right(network, images.to(self.device).contiguous(memory_format=torch.channels_last))
        self.pools = {kind: ImagePool(recipe.pool_size, (a.depth, a.size, a.size)) for kind in KINDS}
        self.optimisers = [
            torch.optim.Adam(parameters, recipe.learning_rate, betas=(0.5, 0.999))
            for parameters in (model.making.parameters(), self._critics.parameters())
        ]
        self.updates = 0
        if resume:
            self._restore(resume)

    @abstractmethod
    def make(self, real: Images, rng: np.random.Generator) -> Made:
        """What the generators make of real images."""

    @abstractmethod
    def judge(self, real: Images, made: Made, rng: np.random.Generator) -> Tensor:
        """How badly the critics do on what was made."""

    def step(self, step: ImageStep, batch: Mapping[str, Tensor]) -> Losses:
        """One step on images (N, depth, H, W) of each kind. CapacityError when the training diverges."""
        real = {k: x.to(self.device).contiguous(memory_format=torch.channels_last) for k, x in batch.items()}
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.recipe, step.position)
        rng = step_rng(self.recipe, step, 0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            with _frozen(self._critics):
                made = self.make(real, rng)
                tied = self.recipe.consistency * made.consistency + self.recipe.identity * made.identity
                self._update(0, made.adversarial + tied)
            critic = self.judge(real, made, rng)
            self._update(1, critic)
        self.updates += 1
        values = (made.adversarial, made.consistency, made.identity, critic)
        losses = Losses(*(float(loss.detach()) / 2 for loss in values))
        if not all(map(math.isfinite, astuple(losses))):
            raise CapacityError(
                f"training diverged in epoch {step.epoch}: {losses}", hint="lower the learning rate, or use float32"
            )
        return losses

    @property
    def _critics(self) -> nn.ModuleList:
        return nn.ModuleList([*self.model.judging, *self.model.pair_critics])

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
        return self.optimisers[0 if parameter.startswith(("generators.", "colleagues.")) else 1]

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


@contextmanager
def _frozen(part: nn.Module) -> Iterator[None]:
    """No gradients of this part's own parameters, which would be thrown away."""
    part.requires_grad_(False)
    try:
        yield
    finally:
        part.requires_grad_(True)


def squared(judged: Tensor, wanted: float) -> Tensor:
    """The least-squares loss (Mao et al. 2017)."""
    return (judged - wanted).square().mean()


def absolute(made: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute difference."""
    return (made - wanted).abs().mean()


def total(losses: Iterator[Tensor]) -> Tensor:
    """The sum of the losses of both kinds."""
    first, second = losses
    return first + second
