"""A network from what a weights file says of it, and the arrays that go into such a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.layout import Layer, initial_arrays
from ucadi.learn.state import Arrays


def build(architecture: Architecture, seed: int) -> Classifier:
    """A new network with the initial weights of `layout.initial_arrays`."""
    with torch.random.fork_rng(devices=[]):  # the layers' own initialisation draws from the global generator
        model = architecture.blueprint.load()(architecture)
    load_arrays(model, initial_arrays(architecture, seed))
    return model


def layers_of(architecture: Architecture) -> list[Layer]:
    """The layers of a network that has no layout of its own, in the order in which it makes them."""
    with torch.device("meta"):
        model = architecture.blueprint.load()(architecture)
    layers = []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        if "weight" not in own or own.keys() - {"weight", "bias"}:
            raise UsageError(
                f"network {architecture.name}: layer {name} has parameters {', '.join(own)}",
                hint="its Blueprint must say which layers it has: see Blueprint.layers",
            )
        layers.append(Layer(name, tuple(own["weight"].shape), "bias" in own))
    return layers


def restore(described: Mapping[str, Any], arrays: Arrays) -> Classifier:
    """The network with its weights. FormatError for an unknown architecture, MismatchError for foreign tensors."""
    architecture = Architecture.parse(described)
    with torch.device("meta"):  # takes no memory: the file may claim a network that none has room for
        check_arrays(architecture.blueprint.load()(architecture), arrays)
    model = build(architecture, seed=0)
    load_arrays(model, arrays)
    return model


def check_input(model: Classifier, size: int, name: str) -> None:
    """Raises MismatchError, naming the dataset, unless its slices have the size that the network takes."""
    expected = model.architecture.size
    if size != expected:
        raise MismatchError(
            f"{name}: slices of {size} x {size} pixels, the network takes {expected} x {expected}",
            hint=f"ucadi preprocess --size {expected}",
        )


def checked_slab(slab: NDArray[np.float32], case: int, architecture: Architecture) -> NDArray[np.float32]:
    """The slab (1, 16, H, W) of a case as float32; MismatchError for another shape, FormatError for NaN."""
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


def state_arrays(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copies of the parameters and the batch norms' running statistics, sorted by name.

    torch's counters of batches, which are integers and unused at a fixed momentum, are left out.
    """
    return copies(_floating(model))


def load_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Sets what `state_arrays` gave. MismatchError lists what is missing, unknown or of another shape."""
    fill(_floating(model), arrays, _UNFIT)


def check_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Raises what `load_arrays` raises, and sets nothing; the model may be on the device `meta`."""
    _check_fit(_floating(model), arrays, _UNFIT)


_UNFIT = "the weights do not fit the network"


def _floating(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def copies(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """The tensors as arrays of their own, sorted by name."""
    return {
        name: np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")
        for name, tensor in sorted(tensors.items())
    }


def fill(own: Mapping[str, Tensor], arrays: Arrays, fault: str) -> None:
    """Copies the arrays into the tensors; MismatchError, beginning with `fault`, unless all fit."""
    _check_fit(own, arrays, fault)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


def _check_fit(own: Mapping[str, Tensor], arrays: Arrays, fault: str) -> None:
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
