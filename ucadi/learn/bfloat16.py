"""bfloat16 only where this processor computes it right.

On some processors torch's kernels give back memory that they never wrote (torch 2.11 and 2.13: weight gradients of
3x3x3 convolutions over one or two slices on AVX-512, of depthwise ones even on AMX). What stands there is often right,
left by the step before, and now and then 1e35. So a step is tried before any training: twice in bfloat16, with
fresh memory filled differently, and once in float32.
"""

from __future__ import annotations

import copy
import ctypes
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from ucadi.errors import UsageError
from ucadi.progress import note

T = TypeVar("T")

FILLINGS = (0x7F, 0xFE)
"""Bytes that fill memory which is no tensor: as float32 and as bfloat16 numbers near 3e38 and near -1e38."""

BOUND = 10.0
"""How many times as long or as short as in float32 a gradient may be: rounding changes it by a few percent."""

M_PERTURB = -6
"""mallopt(3) of glibc: fresh memory is filled with the inverse of this byte, with zero it is left as it is."""


class Float32Layer(nn.Module):
    """Mixed into a layer that computes in float32 within a network that computes in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = super().forward(x.float())
        return y.to(x.dtype)


def keep_right(network: nn.Module, sample: Tensor) -> list[str]:
    """Lets each layer whose bfloat16 gradients are wrong here compute in float32, and gives the names of these layers.

    `sample` (N, ...) has the shape and the layout that the network will be trained on. GPUs, of which no such fault is
    known, are not tried. Raises UsageError where the gradients stay wrong.
    """
    kept: list[str] = []
    while sample.device.type == "cpu" and (faults := wrong_gradients(network, sample)):
        names = list(dict.fromkeys(name.rpartition(".")[0] for name in faults))
        layers = [network.get_submodule(name) for name in names]
        if any(isinstance(layer, Float32Layer) for layer in layers):
            raise UsageError(
                f"bfloat16 goes wrong on this processor: wrong gradients in {_some(names)}",
                hint='train in float32: precision = "float32" in the recipe, or --set precision=float32',
            )
        for layer in layers:
            layer.__class__ = type(f"Float32{type(layer).__name__}", (Float32Layer, type(layer)), {})
        kept += names
    if kept:
        note(f"bfloat16 goes wrong on this processor in {_some(kept)}: computed in float32 instead")
    return kept


def wrong_gradients(network: nn.Module, sample: Tensor) -> list[str]:
    """The parameters whose gradient in bfloat16 depends on what memory held before, is not finite, or is far too long.

    All parameters, if the gradient as a whole is far too short.
    """
    trial = copy.deepcopy(network).train()
    expected = _length(_gradients(trial, sample, half=False).values())
    first, second = (_in_memory_of(filling, lambda: _gradients(trial, sample, half=True)) for filling in FILLINGS)
    if _length(first.values()) < expected / BOUND:
        return list(first)
    return [
        name
        for name, gradient in first.items()
        if not torch.equal(gradient, second[name])  # also where both are NaN
        or not _length([gradient]) <= BOUND * expected
    ]


def same_in_any_memory(run: Callable[[], Tensor]) -> bool:
    """Whether `run` gives the same bits twice, with fresh memory filled differently."""
    first, second = (_in_memory_of(filling, run) for filling in FILLINGS)
    return torch.equal(first, second)


def _gradients(network: nn.Module, sample: Tensor, *, half: bool) -> dict[str, Tensor]:
    """Of the mean square of what the network makes of the sample."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    with torch.autocast(sample.device.type, torch.bfloat16, enabled=half):
        loss = network(sample).float().square().mean()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    given: list[Tensor | None] = list(found)
    return {name: gradient for name, gradient in zip(parameters, given, strict=True) if gradient is not None}


def _length(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _in_memory_of(filling: int, run: Callable[[], T]) -> T:
    with _fresh_memory(filling ^ 0xFF):
        return run()


@contextmanager
def _fresh_memory(perturb: int) -> Iterator[None]:
    """Tensors are filled by torch, with what is not a number; what its libraries take for themselves by glibc.

    Elsewhere than on glibc, the two tries differ in the latter only by chance.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    mallopt(M_PERTURB, perturb)
    torch.use_deterministic_algorithms(True, warn_only=True)  # without this, torch fills nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is not deterministic on a GPU is not asked here
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        mallopt(M_PERTURB, 0)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
