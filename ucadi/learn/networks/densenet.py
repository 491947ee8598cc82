"""The paper's 3D-DenseNet (Methods, model architecture; Supplementary Fig. 2; DenseNet: Huang et al. 2017).

Fifteen convolutions: the first one, two in each of six dense blocks, one in each of two transmit blocks.
As published, convolutions have biases, even those before a norm, where a bias changes nothing: they
belong to the 726,972 parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.blueprints import LEAKY_SLOPE
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.dropblock import DropBlock3D
from ucadi.learn.networks.norms import norm


class DenseBlock(nn.Sequential):
    """(N, C, D, H, W) to (N, C + growth, D, H, W): two convolutions, concatenated with their input."""

    def __init__(self, channels: int, growth: int, kind: str) -> None:
        super().__init__()
        self.norm1, self.act1 = norm(kind, channels), _act()
        self.conv1 = nn.Conv3d(channels, 4 * growth, kernel_size=1)
        self.norm2, self.act2 = norm(kind, 4 * growth), _act()
        self.conv2 = nn.Conv3d(4 * growth, growth, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, super().forward(x)), dim=1)  # type: ignore[no-untyped-call]


class TransmitBlock(nn.Sequential):
    """(N, C, D, H, W) to (N, C/2, D/2, H/2, W/2)."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.norm, self.act = norm(kind, channels), _act()
        self.conv = nn.Conv3d(channels, channels // 2, kernel_size=1)
        self.pool = nn.AvgPool3d(2)


class DenseNet3D(Classifier):
    """Slabs (N, 1, 16, 128, 128) to logits (N, 4)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        width, kind = architecture.width, architecture.norm
        self.conv, self.norm, self.act = nn.Conv3d(1, width, kernel_size=3, padding=1), norm(kind, width), _act()
        self.drop_before = DropBlock3D()
        self.blocks = nn.Sequential()
        channels = width
        for stage, depth in enumerate(architecture.blocks):
            if stage > 0:
                self.blocks.add_module(f"transmit{stage}", TransmitBlock(channels, kind))
                channels //= 2
            for i in range(depth):
                self.blocks.add_module(f"dense{stage + 1}_{i + 1}", DenseBlock(channels, width, kind))
                channels += width
        self.last_norm, self.last_act = norm(kind, channels), _act()
        self.drop_after = DropBlock3D()
        self.classifier = nn.Linear(channels, architecture.classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))  # (N, 32, 16, 128, 128)
        x = self.drop_before(x)
        x = self.through(
            self.blocks, x
        )  # (N, 96, 16, 128, 128), (N, 112, 8, 64, 64), (N, 120, 4, 32, 32) after the stages
        last: Tensor = self.last_act(self.last_norm(x))
        return last

    def classify(self, features: Tensor) -> Tensor:
        return super().classify(self.drop_after(features))


def _act() -> nn.LeakyReLU:
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)  # batch norm's backward pass needs its input, not this output
