"""One step of SGD, and what changes from step to step: the model, the optimiser's velocity, FedProx's anchor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ucadi.errors import CapacityError
from ucadi.hyperparameters import Recipe
from ucadi.learn.bfloat16 import keep_right
from ucadi.learn.distributed import Group, synchronise_norms
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.registry import copies, fill, load_arrays, state_arrays
from ucadi.learn.privacy import private_gradient
from ucadi.learn.recipe import Step, drop_rate, learning_rate, steps_an_epoch
from ucadi.learn.state import Arrays, TrainingState


class Trainer:
    """Trains `model` in place, step by step, on so many cases, from a state if one is given."""

    def __init__(
        self, model: Classifier, recipe: Recipe, cases: int, resume: TrainingState | None, group: Group
    ) -> None:
        self.model, self.recipe, self.group = model, recipe, group
        self.expected = cases / steps_an_epoch(recipe, cases)
        self.device = next(model.parameters()).device
        self.half = recipe.precision == "bfloat16"
        # Channels last is the faster layout (on two cores by a quarter at float32, by half at the full width
        # and bfloat16), except where bfloat16 meets fewer channels than a vector holds.
        narrow = self.half and model.architecture.width < 8
        self.layout = torch.contiguous_format if narrow else torch.channels_last_3d
        model.to(memory_format=self.layout)  # type: ignore[call-overload]
        if self.half:
            keep_right(model, self._sample())
        self.parameters = dict(model.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim == 1]},  # norms and biases, which are not to shrink
        ]
        self.optimiser = torch.optim.SGD(groups, momentum=recipe.momentum)
        self.anchor = {name: p.detach().clone() for name, p in self.parameters.items()} if recipe.proximal else {}
        self.class_weights = torch.tensor(recipe.loss_weights, device=self.device)
        if resume:
            self._restore(resume)
        self.network: nn.Module = model
        if group.size > 1:
            synchronise_norms(model)
            # the statistics are the same everywhere as they are, and need not be sent
            self.network = DistributedDataParallel(model, broadcast_buffers=False)

    def _sample(self) -> Tensor:
        """Slabs (N, 1, D, H, W) to try bfloat16 with: four, or one where gradients are of single cases."""
        a = self.model.architecture
        shape = (1 if self.recipe.noise else 4, 1, a.slices, a.size, a.size)
        slabs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return slabs.to(self.device).to(memory_format=self.layout)

    def _restore(self, state: TrainingState) -> None:
        load_arrays(self.model, state.arrays)
        fill(self.anchor, state.anchor, "the training state's anchor does not fit")
        velocity = {name: torch.empty_like(p) for name, p in self.parameters.items() if self.recipe.momentum}
        fill(velocity, state.momentum, "the training state's momentum does not fit")
        for name, tensor in velocity.items():
            self.optimiser.state[self.parameters[name]]["momentum_buffer"] = tensor

    def step(self, step: Step, x: Tensor, y: Tensor) -> tuple[float, NDArray[np.float32]]:
        """One step on slabs `x` (N, 1, D, H, W) of diagnoses `y` (N), which are the group's share of the step's batch.

        Gives the loss and the probabilities (cases, 4) of the whole batch, both of the model before the step.
        CapacityError when the training diverges.
        """
        share, total = self.group.share(step.cases), len(step.cases)
        x = x.to(self.device, non_blocking=True).to(memory_format=self.layout)
        y = y.to(self.device, non_blocking=True)
        rate, generator = drop_rate(self.recipe, step.position), _generator(step)
        self.model.drop(rate, generator, (share, total) if self.group.size > 1 else None)
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self._private(step, x, y) if self.recipe.noise else self.network(x).float()  # (N, 4)
        loss = self._loss(logits, y)
        value = float(self.group.summed(loss.detach().clone())) / self.group.size
        if not math.isfinite(value):
            cases = ", ".join(str(case) for case in step.cases)
            raise _diverged(f"the loss is {value} in epoch {step.epoch} at cases {cases}")
        if not self.recipe.noise:
            loss.backward()  # type: ignore[no-untyped-call]
        for name, anchor in self.anchor.items():
            parameter = self.parameters[name]
            parameter.grad = _present(parameter.grad) + self.recipe.proximal * (parameter.detach() - anchor)
        if self.recipe.clip_norm is not None and not self.recipe.noise:  # else each case's gradient is bounded
            nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, step.position)
        self.optimiser.step()
        probabilities = self.group.gathered(logits.detach().softmax(dim=1), share, total)
        return value, probabilities.cpu().numpy()

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The weighted cross-entropy. In a group, such that the mean of all processes' is that of the whole batch."""
        if self.group.size == 1:
            return functional.cross_entropy(logits, y, self.class_weights) if len(y) else torch.zeros(())
        weight = self.group.summed(self.class_weights[y].sum())
        return functional.cross_entropy(logits, y, self.class_weights, reduction="sum") * self.group.size / weight

    def _private(self, step: Step, x: Tensor, y: Tensor) -> Tensor:
        """Sets the gradients that a private step takes, and gives the logits."""
        gradients, logits = private_gradient(self.model, x, y, self.class_weights, self.recipe, step, self.expected)
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        return logits

    def require_finite(self, epoch: int) -> None:
        """The loss is looked at before each step; this looks at what the last step has done."""
        for name, tensor in self.model.state_dict().items():
            if not tensor.isfinite().all():
                raise _diverged(f"{name} is not finite after epoch {epoch}")

    def arrays(self) -> tuple[Arrays, Arrays, Arrays]:
        """Copies of the model, the optimiser's velocity and the anchor."""
        buffers: Mapping[str, Tensor | None] = {
            name: self.optimiser.state[p].get("momentum_buffer") for name, p in self.parameters.items()
        }
        momentum = copies({name: buffer for name, buffer in buffers.items() if buffer is not None})
        return state_arrays(self.model), momentum, copies(self.anchor)


def _generator(step: Step) -> torch.Generator:
    # 63 bits: the generator takes a signed integer. The middle 1 keeps it apart from the permutation's seed.
    state = np.random.SeedSequence((step.seed, step.epoch, 1, step.number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _diverged(how: str) -> CapacityError:
    return CapacityError(
        f"training diverged: {how}",
        hint="lower the learning rate, warm up longer, or bound the gradient with clip_norm",
    )


def _present(gradient: Tensor | None) -> Tensor:
    assert gradient is not None  # after the backward pass every parameter has one
    return gradient
