"""The networks of CycleGAN (Zhu et al. 2017), which the paper makes non-contrast CTs of contrast CTs with, and back.

Two generators, one for each direction, and two critics that tell real slices from made ones. Generators are
ResNets with nine blocks, critics see patches of 70 x 70 pixels (Zhu et al., appendix 7.2). An image is a stack
of adjacent slices as channels, in the units of a window of HU: -1 to 1. Other methods use the same networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ucadi.translation.recipe import CYCLE_GAN, KINDS, MEMBERS, PAIRS, TranslatorArchitecture


class Generator(nn.Module):
    """Images (N, depth, H, W) of one kind to images of the other, both in the units of the window.

    Methods that make one of many possible images take noise as well, (N, 1, H, W); without it, it is zero.
    """

    def __init__(self, architecture: TranslatorArchitecture) -> None:
        super().__init__()
        width, depth, self.skip = architecture.width, architecture.depth, architecture.skip
        self.channels = depth
        self.noisy = architecture.method != CYCLE_GAN
        self.layers = nn.Sequential(
            *_normed(_mirrored(depth + self.noisy, width, 7)),
            *_normed(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)),
            *_normed(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)),
            *(ResidualBlock(4 * width) for _ in range(architecture.blocks)),
            *_normed(nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1)),
            *_normed(nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)),
            _mirrored(width, depth, 7),
        )

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        seen = x
        if self.noisy:
            seen = torch.cat([x, torch.zeros_like(x[:, :1]) if noise is None else noise], dim=1)
        y: Tensor = self.layers(seen).float()
        return x + y if self.skip else y.tanh()


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normed(_mirrored(channels, channels, 3)), _mirrored(channels, channels, 3), nn.InstanceNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class Critic(nn.Module):
    """Images (N, channels, H, W) to how real each of their patches looks, (N, 1, H / 8 - 2, W / 8 - 2): real is 1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            *_normed(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), slope=0.2),
            *_normed(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1), slope=0.2),
            *_normed(nn.Conv2d(4 * width, 8 * width, 4, padding=1), slope=0.2),
            nn.Conv2d(8 * width, 1, 4, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x).float()
        return y


class TranslationNetworks(nn.Module):
    """All networks of a method: of each kind of CT a generator that makes it of the other and a critic that judges it.

    A council has `colleagues` and their critics beside them; `pair_critics` judge an image beside what it is made of.
    """

    def __init__(self, architecture: TranslatorArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        depth, width = architecture.depth, architecture.width
        members, pairs = MEMBERS[architecture.method], PAIRS[architecture.method]
        self.generators, *colleagues = (_of_each_kind(lambda: Generator(architecture)) for _ in range(members))
        self.critics, *others = (_of_each_kind(lambda: Critic(depth, width)) for _ in range(members))
        self.colleagues, self.colleague_critics = nn.ModuleList(colleagues), nn.ModuleList(others)
        self.pair_critics = nn.ModuleList(_of_each_kind(lambda: Critic(2 * depth, width)) for _ in range(pairs))

    @property
    def making(self) -> nn.ModuleList:
        """All generators, member by member."""
        return nn.ModuleList([self.generators, *self.colleagues])

    @property
    def judging(self) -> nn.ModuleList:
        """The critics of what each member makes, in the same order."""
        return nn.ModuleList([self.critics, *self.colleague_critics])


def build(architecture: TranslatorArchitecture, seed: int) -> TranslationNetworks:
    """New networks, the same bits for a seed on every machine.

    The weights have Zhu et al.'s standard deviation of 0.02, but are uniform: see `registry` of `learn`.
    """
    with torch.random.fork_rng(devices=[]):
        model = TranslationNetworks(architecture)
    generator = torch.Generator().manual_seed(seed)
    bound = 0.02 * 3**0.5
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Generator) and architecture.skip:  # training begins with no change at all
            nn.init.zeros_(module.layers[-1].weight)  # type: ignore[arg-type]
    return model


def _of_each_kind(network: Callable[[], nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({kind: network() for kind in KINDS})


def _mirrored(channels: int, made: int, kernel: int) -> nn.Conv2d:
    """A convolution whose image goes on mirrored beyond its border."""
    return nn.Conv2d(channels, made, kernel, padding=kernel // 2, padding_mode="reflect")


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d, slope: float = 0.0) -> tuple[nn.Module, ...]:
    """The convolution, an instance norm and an activation."""
    activation = nn.LeakyReLU(slope) if slope else nn.ReLU()
    return convolution, nn.InstanceNorm2d(convolution.out_channels), activation
