"""A network from what a weights file says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ucadi.errors import FormatError, MismatchError
from ucadi.learn.densenet import Architecture, DenseNet3D, build
from ucadi.learn.training import Arrays, load_arrays


def restore(architecture: Mapping[str, Any], arrays: Arrays) -> DenseNet3D:
    """The network with its weights. FormatError for an unknown architecture, MismatchError for foreign tensors."""
    try:
        described = Architecture(**architecture)
    except TypeError as error:
        raise FormatError(f"architecture: {error}", hint="the weights come from another release of ucadi") from None
    model = build(described, seed=0)
    load_arrays(model, arrays)
    return model


def check_input(model: DenseNet3D, size: int, name: str) -> None:
    """Raises MismatchError, naming the dataset, unless its slices have the size that the network takes."""
    expected = model.architecture.size
    if size != expected:
        raise MismatchError(
            f"{name}: slices of {size} x {size} pixels, the network takes {expected} x {expected}",
            hint=f"ucadi preprocess --size {expected}",
        )


def count_parameters(model: DenseNet3D) -> int:
    """Learned numbers of the network, without the norms' running statistics."""
    return sum(parameter.numel() for parameter in model.parameters())
