"""3D-ResNet-50 and -101, a baseline of the paper (Supplementary Tables 6 and 7; Hara, Kataoka and Satoh, CVPR 2018).

Bottleneck blocks of He et al. (2016) with every convolution in three dimensions: 1x1x1, 3x3x3 with the stride, 1x1x1.
A convolution of 7x7x7 with stride 2 in the plane and a max pool come first; convolutions have no biases.
"""

from __future__ import annotations

from torch import Tensor, nn

from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.layout import BOTTLENECK
from ucadi.learn.networks.norms import norm
from ucadi.learn.networks.pooling import MaxPool


class Bottleneck(nn.Module):
    """(N, C, D, H, W) to (N, 4 width, D/s, H/s, W/s): three convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: tuple[int, int, int], kind: str) -> None:
        super().__init__()
        out = BOTTLENECK * width
        self.conv1, self.norm1 = nn.Conv3d(channels, width, 1, bias=False), norm(kind, width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = norm(kind, width)
        self.conv3, self.norm3 = nn.Conv3d(width, out, 1, bias=False), norm(kind, out)
        self.act = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if channels != out:
            self.shortcut.add_module("conv", nn.Conv3d(channels, out, 1, stride=stride, bias=False))
            self.shortcut.add_module("norm", norm(kind, out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        out: Tensor = self.act(y + self.shortcut(x))
        return out


class ResNet3D(Classifier):
    """Slabs (N, 1, 16, 128, 128) to logits (N, 4)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        width, kind = architecture.width, architecture.norm
        self.conv = nn.Conv3d(1, width, kernel_size=7, stride=(1, 2, 2), padding=3, bias=False)
        self.norm, self.act = norm(kind, width), nn.ReLU(inplace=True)
        self.pool = MaxPool()
        self.blocks = nn.Sequential()
        channels = width
        extent = [_halved(n) for n in (architecture.slices, *2 * [_halved(architecture.size)])]  # after the pool
        for stage, depth in enumerate(architecture.blocks):
            for i in range(depth):
                halves = stage > 0 and i == 0
                # Along single voxels a stride changes nothing but torch 2.13's bfloat16 gradient: that is garbage then.
                slices, rows, columns = (2 if halves and voxels > 1 else 1 for voxels in extent)
                extent = [_halved(voxels) if halves else voxels for voxels in extent]
                stride = (slices, rows, columns)
                self.blocks.add_module(f"block{stage + 1}_{i + 1}", Bottleneck(channels, width << stage, stride, kind))
                channels = BOTTLENECK * width << stage
        self.classifier = nn.Linear(channels, architecture.classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.conv(x))))  # (N, 64, 8, 32, 32)
        return self.through(self.blocks, x)  # (N, 2048, 1, 4, 4)


def _halved(voxels: int) -> int:
    """What a stride of two leaves of them."""
    return -(-voxels // 2)
