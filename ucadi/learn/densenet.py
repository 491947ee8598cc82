"""The paper's 3D-DenseNet (Methods, model architecture; Supplementary Fig. 2; DenseNet: Huang et al. 2017).

Fifteen convolutions: the first one, two in each of six dense blocks, one in each of two transmit blocks.
As published, convolutions have biases, even those before a norm, where a bias changes nothing: they
belong to the 726,972 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ucadi.errors import FormatError
from ucadi.learn.dropblock import DropBlock3D

SLOPE = 0.2
"""Negative slope of every LeakyReLU."""

MOMENTUM = 0.1
"""Batch norm's momentum. The paper's 0.9 weighs the old running mean; torch's weighs the new batch: 1 - 0.9."""


@dataclass(frozen=True)
class Architecture:
    """What it takes to build a network, as plain numbers; the defaults are the paper's.

    `width` is the growth rate, the channels of the first convolution and a quarter of the bottleneck;
    `blocks` the dense blocks of each stage. The input is slabs (1, slices, size, size).
    FormatError for numbers that make no network.
    """

    name: str = "densenet3d"
    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2)
    slices: int = 16
    size: int = 128
    classes: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))  # JSON knows lists only
        halvings = len(self.blocks) - 1  # one in each transmit block
        for name, value, least in (
            ("width", self.width, 2),
            ("blocks", min(self.blocks, default=0), 1),
            ("slices", self.slices, 2**halvings),
            ("size", self.size, 2**halvings),
            ("classes", self.classes, 2),
        ):
            if value < least:
                raise FormatError(f"architecture: {name} is {value}", hint=f"it must be {least} or more")


class DenseBlock(nn.Sequential):
    """(N, C, D, H, W) to (N, C + growth, D, H, W): two convolutions, concatenated with their input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.act1 = _norm(channels), _act()
        self.conv1 = nn.Conv3d(channels, 4 * growth, kernel_size=1)
        self.norm2, self.act2 = _norm(4 * growth), _act()
        self.conv2 = nn.Conv3d(4 * growth, growth, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, super().forward(x)), dim=1)  # type: ignore[no-untyped-call]


class TransmitBlock(nn.Sequential):
    """(N, C, D, H, W) to (N, C/2, D/2, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.act = _norm(channels), _act()
        self.conv = nn.Conv3d(channels, channels // 2, kernel_size=1)
        self.pool = nn.AvgPool3d(2)


class DenseNet3D(nn.Module):
    """Slabs (N, 1, 16, 128, 128) to logits (N, 4) in the order of `ucadi.labels.Diagnosis`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.width
        self.conv, self.norm, self.act = nn.Conv3d(1, width, kernel_size=3, padding=1), _norm(width), _act()
        self.drop_before = DropBlock3D()
        self.blocks = nn.Sequential()
        channels = width
        for stage, depth in enumerate(architecture.blocks):
            if stage > 0:
                self.blocks.add_module(f"transmit{stage}", TransmitBlock(channels))
                channels //= 2
            for i in range(depth):
                self.blocks.add_module(f"dense{stage + 1}_{i + 1}", DenseBlock(channels, width))
                channels += width
        self.last_norm, self.last_act = _norm(channels), _act()
        self.drop_after = DropBlock3D()
        self.classifier = nn.Linear(channels, architecture.classes)

    def features(self, x: Tensor) -> Tensor:
        """The last feature map, where Grad-CAM looks: (N, 1, 16, 128, 128) to (N, 120, 4, 32, 32)."""
        x = self.act(self.norm(self.conv(x)))  # (N, 32, 16, 128, 128)
        x = self.drop_before(x)
        x = self.blocks(x)  # (N, 96, 16, 128, 128), (N, 112, 8, 64, 64), (N, 120, 4, 32, 32) after the stages
        last: Tensor = self.last_act(self.last_norm(x))
        return last

    def classify(self, features: Tensor) -> Tensor:
        """The logits of a feature map: (N, 120, 4, 32, 32) to (N, 4)."""
        pooled = self.drop_after(features).mean(dim=(2, 3, 4))  # (N, 120)
        logits: Tensor = self.classifier(pooled)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))

    def drop(self, rate: float, generator: torch.Generator | None) -> None:
        """From now on both DropBlocks drop `rate` of their voxels, drawn from `generator`, while training."""
        for dropblock in (self.drop_before, self.drop_after):
            dropblock.rate, dropblock.generator = rate, generator


def build(architecture: Architecture, seed: int) -> DenseNet3D:
    """A new network with He initialisation (He et al. 2015), the same bits for a seed on every run and machine.

    Uniform rather than normal: its numbers are integers scaled, and not the output of a machine's `log` and
    `cos`. FormatError for an architecture of another name.
    """
    if architecture.name != "densenet3d":
        raise FormatError(f"architecture: no network is called {architecture.name!r}", hint="use densenet3d")
    with torch.random.fork_rng(devices=[]):  # the layers' own initialisation draws from the global generator
        model = DenseNet3D(architecture)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=SLOPE, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, momentum=MOMENTUM)


def _act() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE, inplace=True)  # batch norm's backward pass needs its input, not this output
