"""3D-Xception, a baseline of the paper (Supplementary Tables 6 and 7; Chollet, CVPR 2017, Fig. 5).

Every convolution in three dimensions. As published: separable convolutions (one 3x3x3 convolution a channel, then
1x1x1) with a norm after each and no activation between the two; entry, middle and exit flow. Other than published,
the first two convolutions pad their input, as slabs are smaller than photographs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.classifier import Classifier
from ucadi.learn.networks.norms import norm
from ucadi.learn.networks.pooling import MaxPool


class Separable(nn.Sequential):
    """(N, C, D, H, W) to (N, out, D, H, W)."""

    def __init__(self, channels: int, out: int, kind: str) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv3d(channels, out, 1, bias=False)
        self.norm = norm(kind, out)


class Block(nn.Module):
    """(N, C, D, H, W) to (N, out, D/s, H/s, W/s): separable convolutions, a max pool with stride, and a shortcut."""

    def __init__(self, channels: int, widths: Sequence[int], *, strided: bool, active: bool, kind: str) -> None:
        super().__init__()
        self.body, before = nn.Sequential(), channels
        for i, width in enumerate(widths, start=1):
            if active or i > 1:
                self.body.add_module(f"act{i}", nn.ReLU())
            self.body.add_module(f"separable{i}", Separable(before, width, kind))
            before = width
        self.shortcut = nn.Sequential()
        if strided:
            self.body.add_module("pool", MaxPool())
            self.shortcut.add_module("conv", nn.Conv3d(channels, before, 1, stride=2, bias=False))
            self.shortcut.add_module("norm", norm(kind, before))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class Xception3D(Classifier):
    """Slabs (N, 1, 16, 128, 128) to logits (N, 4)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        w, kind = architecture.width, architecture.norm
        self.conv1, self.norm1 = nn.Conv3d(1, w, 3, stride=2, padding=1, bias=False), norm(kind, w)
        self.conv2, self.norm2 = nn.Conv3d(w, 2 * w, 3, padding=1, bias=False), norm(kind, 2 * w)
        self.act = nn.ReLU(inplace=True)
        middle = 728 * w // 32
        self.entry, self.middle = nn.Sequential(), nn.Sequential()
        channels = 2 * w
        for i, width in enumerate((4 * w, 8 * w, middle), start=1):
            block = Block(channels, (width, width), strided=True, active=i > 1, kind=kind)
            self.entry.add_module(f"block{i}", block)
            channels = width
        for i in range(architecture.blocks[0]):
            block = Block(middle, (middle,) * 3, strided=False, active=True, kind=kind)
            self.middle.add_module(f"block{i + 1}", block)
        self.exit = Block(middle, (middle, 32 * w), strided=True, active=True, kind=kind)
        self.separable1 = Separable(32 * w, 48 * w, kind)
        self.separable2 = Separable(48 * w, 64 * w, kind)
        self.classifier = nn.Linear(64 * w, architecture.classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))  # (N, 32, 8, 64, 64)
        x = self.act(self.norm2(self.conv2(x)))  # (N, 64, 8, 64, 64)
        x = self.exit(
            self.through(self.middle, self.through(self.entry, x))
        )  # (N, 728, 1, 8, 8), then (N, 1024, 1, 4, 4)
        x = self.act(self.separable1(x))
        last: Tensor = self.act(self.separable2(x))  # (N, 2048, 1, 4, 4)
        return last
