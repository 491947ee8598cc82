"""Local training (paper, Methods: model architecture and training): SGD, warm-up and cosine, weighted cross-entropy.

All randomness follows from (seed, epoch, step), and nothing is read from torch's global generators: an
epoch can be run again, or after an interruption, and gives the same bits on one machine with one number
of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ucadi.errors import CapacityError, FormatError, MismatchError, UsageError
from ucadi.labels import LOSS_WEIGHTS
from ucadi.learn.densenet import Architecture, DenseNet3D
from ucadi.progress import track

Arrays = Mapping[str, NDArray[np.float32]]
"""Tensors by name: float32 arrays on the CPU."""

Slab = Callable[[int, int], NDArray[np.float32]]
"""From an epoch and the index of a case to its slab (1, 16, H, W); a pure function, asked once an epoch."""


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the paper's, where it gives them. UsageError for impossible numbers.

    Epochs count over the whole of a training, also when a federation spreads it over rounds.
    `drop_rate` is DropBlock's at the end, reached linearly from zero. `proximal` is FedProx's mu (Li et al.
    2020), the pull to the weights at the start; `clip_norm` bounds the gradient's norm. `precision` may be
    "bfloat16": two to three times as fast where the processor multiplies such numbers in hardware (AMX,
    AVX-512 BF16, GPUs), slower elsewhere; weights and their updates stay float32.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 16
    warmup_epochs: int = 5
    total_epochs: int = 100
    loss_weights: tuple[float, ...] = LOSS_WEIGHTS
    drop_rate: float = 0.1
    clip_norm: float | None = None
    proximal: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))  # JSON knows lists only
        for name, value, fits, wanted in (
            ("learning_rate", self.learning_rate, 0 <= self.learning_rate < math.inf, "zero or more"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "zero or more"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "one or more"),
            ("total_epochs", self.total_epochs, self.total_epochs >= 1, "one or more"),
            ("warmup_epochs", self.warmup_epochs, 0 <= self.warmup_epochs <= self.total_epochs, "at most total_epochs"),
            ("loss_weights", self.loss_weights, all(0 < w < math.inf for w in self.loss_weights), "above zero"),
            ("drop_rate", self.drop_rate, 0 <= self.drop_rate < 1, "from 0 to below 1"),
            ("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "above zero, or none"),
            ("proximal", self.proximal, 0 <= self.proximal < math.inf, "zero or more"),
            ("precision", self.precision, self.precision in ("float32", "bfloat16"), "float32 or bfloat16"),
            ("seed", self.seed, self.seed >= 0, "zero or more"),
        ):
            if not fits:
                raise UsageError(f"recipe: {name} is {value}", hint=f"it must be {wanted}")


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch was like: weighted cross-entropy and share of right answers on the way, before each step."""

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    """Of the last step."""
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """All that the epochs from `next_epoch` on depend on, besides model, data and recipe."""

    next_epoch: int
    arrays: Arrays
    """The model (see `state_arrays`)."""
    momentum: Arrays = field(default_factory=dict)
    """The optimiser's velocity by parameter."""
    anchor: Arrays = field(default_factory=dict)
    """The parameters that `Recipe.proximal` pulls to; empty without it."""


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate at `epoch`, whole or between: linear warm-up from zero, then a cosine down to zero."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    rest = recipe.total_epochs - recipe.warmup_epochs
    done = min((epoch - recipe.warmup_epochs) / rest, 1.0) if rest else 1.0
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def drop_rate(recipe: Recipe, epoch: float) -> float:
    """DropBlock's rate at `epoch`: from zero, linearly over all epochs (Ghiasi et al. 2018, section 3.3)."""
    return recipe.drop_rate * min(epoch / recipe.total_epochs, 1.0)


@dataclass(frozen=True)
class Step:
    """One step of the optimiser: the cases of its batch, and where in the schedule it stands."""

    epoch: int
    number: int
    cases: NDArray[np.intp]
    position: float
    """In epochs. The middle of the step's share: neither the first rate nor the last one is zero."""


def steps(recipe: Recipe, epoch: int, cases: int) -> list[Step]:
    """The steps of an epoch: a permutation of the cases in even parts.

    Cut at every `batch_size`, 17 cases would be 16 and 1, and the lone one would weigh as much as the
    sixteen and set the batch norm by itself. Even parts are 9 and 8, in as many steps; only where they
    would come down to single cases are there fewer and larger ones.
    """
    count = math.ceil(cases / recipe.batch_size)
    if recipe.batch_size > 1:
        count = min(count, max(1, cases // 2))
    order = np.random.default_rng((recipe.seed, epoch)).permutation(cases)
    parts = enumerate(np.array_split(order, count))
    return [Step(epoch, number, part, epoch + (number + 0.5) / count) for number, part in parts]


def train(
    model: DenseNet3D,
    slab: Slab,
    labels: Sequence[int],
    recipe: Recipe,
    *,
    first_epoch: int,
    epochs: int,
    checkpoint: Callable[[TrainingState], None] | None = None,
    resume: TrainingState | None = None,
) -> list[EpochRecord]:
    """Trains `model` in place for `epochs` epochs of the recipe's schedule, the first being `first_epoch`.

    Case i has the diagnosis `labels[i]`; a diagnosis may have no cases. `checkpoint` is called after each
    epoch, with copies. With the last of these states as `resume`, and all else equal, the epochs that
    remain give the same bits as without an interruption.

    Raises FormatError for no cases or a slab with NaN, MismatchError for shapes, labels or states that do
    not fit the model, UsageError for epochs beyond the schedule, CapacityError when the training diverges.
    """
    last_epoch = first_epoch + epochs
    _check(model.architecture, labels, recipe, first_epoch, last_epoch, resume)
    trainer = _Trainer(model, recipe, resume)
    start = resume.next_epoch if resume else first_epoch
    plan = [step for epoch in range(start, last_epoch) for step in steps(recipe, epoch, len(labels))]
    records = []
    model.train()
    # On a CPU every operation of the network gives the same bits again; on a GPU cuDNN has to be asked to.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        for epoch, of_epoch in groupby(track(plan, "training steps"), key=lambda step: step.epoch):
            began = time.perf_counter()
            losses, weights, right = [], [], 0
            for step in of_epoch:
                x = np.stack([_checked(slab(epoch, int(case)), int(case), model.architecture) for case in step.cases])
                y = np.array([labels[case] for case in step.cases])
                loss, correct = trainer.step(step, torch.from_numpy(x), torch.from_numpy(y))
                losses.append(loss)
                weights.append(sum(recipe.loss_weights[label] for label in y))
                right += correct
            records.append(
                EpochRecord(
                    epoch=epoch,
                    loss=float(np.average(losses, weights=weights)),
                    accuracy=right / len(labels),
                    learning_rate=learning_rate(recipe, step.position),
                    seconds=time.perf_counter() - began,
                )
            )
            trainer.require_finite(epoch)
            if checkpoint:
                checkpoint(trainer.state(next_epoch=epoch + 1))
    model.drop(0.0, None)
    return records


class _Trainer:
    """The model with what changes along with it: the optimiser's velocity, and the anchor of FedProx."""

    def __init__(self, model: DenseNet3D, recipe: Recipe, resume: TrainingState | None) -> None:
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device
        self.half = recipe.precision == "bfloat16"
        # Channels last is the faster layout (on two cores by a quarter at float32, by half at the full width
        # and bfloat16), except where bfloat16 meets fewer channels than a vector holds.
        narrow = self.half and model.architecture.width < 8
        self.layout = torch.contiguous_format if narrow else torch.channels_last_3d
        model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.parameters = dict(model.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim == 1]},  # norms and biases, which are not to shrink
        ]
        self.optimiser = torch.optim.SGD(groups, momentum=recipe.momentum)
        self.anchor = {name: p.detach().clone() for name, p in self.parameters.items()} if recipe.proximal else {}
        self.class_weights = torch.tensor(recipe.loss_weights, device=self.device)
        if resume:
            load_arrays(model, resume.arrays)
            _fill(self.anchor, resume.anchor, "the training state's anchor does not fit")
            velocity = {name: torch.empty_like(p) for name, p in self.parameters.items() if recipe.momentum}
            _fill(velocity, resume.momentum, "the training state's momentum does not fit")
            for name, tensor in velocity.items():
                self.optimiser.state[self.parameters[name]]["momentum_buffer"] = tensor

    def step(self, step: Step, x: Tensor, y: Tensor) -> tuple[float, int]:
        """One step on slabs `x` (N, 1, D, H, W) of diagnoses `y` (N): the loss, and how many were right."""
        x, y = x.to(self.device).to(memory_format=self.layout), y.to(self.device)
        self.model.drop(drop_rate(self.recipe, step.position), _generator(self.recipe.seed, step))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.model(x).float()  # (N, 4)
        loss = functional.cross_entropy(logits, y, self.class_weights)
        if not math.isfinite(loss.item()):
            cases = ", ".join(str(case) for case in step.cases)
            raise _diverged(f"the loss is {loss.item()} in epoch {step.epoch} at cases {cases}")
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, anchor in self.anchor.items():
            parameter = self.parameters[name]
            parameter.grad = _present(parameter.grad) + self.recipe.proximal * (parameter.detach() - anchor)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, step.position)
        self.optimiser.step()
        return loss.item(), int((logits.argmax(dim=1) == y).sum())

    def require_finite(self, epoch: int) -> None:
        """The loss is looked at before each step; this looks at what the last step has done."""
        for name, tensor in self.model.state_dict().items():
            if not tensor.isfinite().all():
                raise _diverged(f"{name} is not finite after epoch {epoch}")

    def state(self, next_epoch: int) -> TrainingState:
        """Copies of all of it."""
        buffers = {name: self.optimiser.state[p].get("momentum_buffer") for name, p in self.parameters.items()}
        return TrainingState(
            next_epoch=next_epoch,
            arrays=state_arrays(self.model),
            momentum={name: _array(buffer) for name, buffer in sorted(buffers.items()) if buffer is not None},
            anchor={name: _array(tensor) for name, tensor in sorted(self.anchor.items())},
        )


def state_arrays(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copies of the parameters and the batch norms' running statistics, sorted by name.

    torch's counters of batches, which are integers and unused at a fixed momentum, are left out.
    """
    return {name: _array(tensor) for name, tensor in sorted(model.state_dict().items()) if tensor.is_floating_point()}


def load_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Sets what `state_arrays` gave. MismatchError lists what is missing, unknown or of another shape."""
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    _fill(own, arrays, "the weights do not fit the network")


def _fill(own: Mapping[str, Tensor], arrays: Arrays, fault: str) -> None:
    faults = [
        *(f"{name} is missing" for name in sorted(own.keys() - arrays.keys())),
        *(f"{name} is unknown" for name in sorted(arrays.keys() - own.keys())),
        *(
            f"{name} is {arrays[name].shape}, not {tuple(own[name].shape)}"
            for name in sorted(own.keys() & arrays.keys())
            if arrays[name].shape != tuple(own[name].shape)
        ),
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise MismatchError(
            f"{fault}: {'; '.join(faults[:5])}{more}",
            hint="use the architecture and the recipe that they were made with",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


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
    for case, label in enumerate(labels):
        if not 0 <= label < classes:
            raise MismatchError(f"case {case}: label {label}, the network knows 0 to {classes - 1}")
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


def _checked(slab: NDArray[np.float32], case: int, architecture: Architecture) -> NDArray[np.float32]:
    expected = (1, architecture.slices, architecture.size, architecture.size)
    if slab.shape != expected:
        raise MismatchError(
            f"case {case}: the slab is {slab.shape}, the network takes {expected}",
            hint="sample with the slices and the size of the network's architecture",
        )
    if not np.isfinite(slab).all():
        raise FormatError(
            f"case {case}: the slab has values that are not finite", hint="preprocess the case again, or leave it out"
        )
    return np.asarray(slab, dtype=np.float32)


def _generator(seed: int, step: Step) -> torch.Generator:
    # 63 bits: the generator takes a signed integer. The middle 1 keeps it apart from the permutation's seed.
    state = np.random.SeedSequence((seed, step.epoch, 1, step.number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _diverged(how: str) -> CapacityError:
    return CapacityError(
        f"training diverged: {how}",
        hint="lower the learning rate, warm up longer, or bound the gradient with clip_norm",
    )


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")


def _present(gradient: Tensor | None) -> Tensor:
    assert gradient is not None  # after the backward pass every parameter has one
    return gradient
