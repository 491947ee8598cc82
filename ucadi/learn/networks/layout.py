"""The tensors of every network and their initial values, without torch: what a coordinator's machine needs.

The networks themselves are in `densenet`, `resnet` and `xception`; a test holds both to the same names and shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.state import Arrays
from ucadi.parts import Feature, require

BOTTLENECK = 4
"""A ResNet block's output channels over those of its middle."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer with a weight (out, in, ...), or a norm with one (channels,)."""

    name: str
    shape: tuple[int, ...]
    bias: bool = True

    @property
    def is_norm(self) -> bool:
        return len(self.shape) == 1

    @property
    def parameters(self) -> int:
        """Learned numbers: of a norm without its running statistics."""
        return math.prod(self.shape) + self.bias * self.shape[0]


def layout(architecture: Architecture) -> list[Layer]:
    """The layers with tensors of their own, in the order in which their initial values are drawn."""
    layers = architecture.blueprint.load_layers()
    if layers is not None:
        return list(layers(architecture))
    require(Feature.NETWORKS)
    from ucadi.learn.networks.registry import layers_of

    return layers_of(architecture)


def initial_arrays(architecture: Architecture, seed: int) -> Arrays:
    """Initial weights of He et al. (2015), by tensor name: the same bits for a seed on every run and machine.

    Uniform rather than normal: the numbers are those of the Mersenne twister, scaled and rounded once, and not the
    output of a machine's `log` and `cos`. Biases and means are zero; scales and variances are one.
    """
    words = np.random.RandomState(seed & 0xFFFFFFFF)
    slope = architecture.blueprint.slope
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer in layout(architecture):
        zeros, ones = np.zeros(layer.shape[0], np.float32), np.ones(layer.shape[0], np.float32)
        arrays[f"{layer.name}.weight"] = ones if layer.is_norm else _he_uniform(words, layer.shape, slope)
        if layer.bias:
            arrays[f"{layer.name}.bias"] = zeros
        if layer.is_norm and architecture.norm == "batch":
            arrays[f"{layer.name}.running_mean"], arrays[f"{layer.name}.running_var"] = zeros.copy(), ones.copy()
    return dict(sorted(arrays.items()))


def _he_uniform(words: np.random.RandomState, shape: tuple[int, ...], slope: float) -> NDArray[np.float32]:
    """Uniform numbers of 24 bits in ±sqrt(6 / ((1 + slope²) fan in)), which is rounded to float32 before."""
    bound = float(np.float32(math.sqrt(6 / ((1 + slope**2) * math.prod(shape[1:])))))
    drawn = words.randint(0, 1 << 32, shape, dtype=np.uint32) & np.uint32((1 << 24) - 1)
    return (drawn * 2.0**-24 * (2 * bound) - bound).astype(np.float32)


def densenet(a: Architecture) -> Iterator[Layer]:
    yield from (Layer("conv", (a.width, 1, 3, 3, 3)), Layer("norm", (a.width,)))
    channels = a.width
    for stage, depth in enumerate(a.blocks):
        if stage > 0:
            name = f"blocks.transmit{stage}"
            yield from (Layer(f"{name}.norm", (channels,)), Layer(f"{name}.conv", (channels // 2, channels, 1, 1, 1)))
            channels //= 2
        for i in range(depth):
            name, wide = f"blocks.dense{stage + 1}_{i + 1}", 4 * a.width
            yield Layer(f"{name}.norm1", (channels,))
            yield Layer(f"{name}.conv1", (wide, channels, 1, 1, 1))
            yield Layer(f"{name}.norm2", (wide,))
            yield Layer(f"{name}.conv2", (a.width, wide, 3, 3, 3))
            channels += a.width
    yield from (Layer("last_norm", (channels,)), Layer("classifier", (a.classes, channels)))


def resnet(a: Architecture) -> Iterator[Layer]:
    yield from _convolved("conv", "norm", (a.width, 1, 7, 7, 7))
    channels = a.width
    for stage, depth in enumerate(a.blocks):
        width, out = a.width << stage, BOTTLENECK * a.width << stage
        for i in range(depth):
            name = f"blocks.block{stage + 1}_{i + 1}"
            yield from _convolved(f"{name}.conv1", f"{name}.norm1", (width, channels, 1, 1, 1))
            yield from _convolved(f"{name}.conv2", f"{name}.norm2", (width, width, 3, 3, 3))
            yield from _convolved(f"{name}.conv3", f"{name}.norm3", (out, width, 1, 1, 1))
            if channels != out:
                yield from _convolved(f"{name}.shortcut.conv", f"{name}.shortcut.norm", (out, channels, 1, 1, 1))
            channels = out
    yield Layer("classifier", (a.classes, channels))


def xception(a: Architecture) -> Iterator[Layer]:
    w, middle = a.width, 728 * a.width // 32
    yield from _convolved("conv1", "norm1", (w, 1, 3, 3, 3))
    yield from _convolved("conv2", "norm2", (2 * w, w, 3, 3, 3))
    channels = 2 * w
    for i, width in enumerate((4 * w, 8 * w, middle), start=1):
        yield from _separable_block(f"entry.block{i}", channels, (width, width), strided=True)
        channels = width
    for i in range(a.blocks[0]):
        yield from _separable_block(f"middle.block{i + 1}", middle, (middle,) * 3, strided=False)
    yield from _separable_block("exit", middle, (middle, 32 * w), strided=True)
    yield from _separable("separable1", 32 * w, 48 * w)
    yield from _separable("separable2", 48 * w, 64 * w)
    yield Layer("classifier", (a.classes, 64 * w))


def _separable_block(name: str, channels: int, widths: tuple[int, ...], *, strided: bool) -> Iterator[Layer]:
    before = channels
    for i, width in enumerate(widths, start=1):
        yield from _separable(f"{name}.body.separable{i}", before, width)
        before = width
    if strided:
        yield from _convolved(f"{name}.shortcut.conv", f"{name}.shortcut.norm", (before, channels, 1, 1, 1))


def _separable(name: str, channels: int, out: int) -> Iterator[Layer]:
    yield Layer(f"{name}.depthwise", (channels, 1, 3, 3, 3), bias=False)
    yield from _convolved(f"{name}.pointwise", f"{name}.norm", (out, channels, 1, 1, 1))


def _convolved(convolution: str, norm: str, shape: tuple[int, ...]) -> Iterator[Layer]:
    """A convolution, which needs no bias before its norm."""
    yield from (Layer(convolution, shape, bias=False), Layer(norm, shape[:1]))
