"""DropBlock in three dimensions (Ghiasi, Lin and Le 2018): drops whole blocks of a feature map.

Neighbouring voxels of a convolutional feature map say nearly the same, so that dropping single ones,
as dropout does, removes little; DropBlock removes cubes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropBlock3D(nn.Module):
    """Zeroes blocks of `block_size`³ voxels, the same ones in every channel of a sample, while training.

    `rate` is the share of voxels to drop and `generator` (on the CPU) where they are drawn from; whoever
    trains sets both before a step, which is what makes a run repeatable and resumable bit for bit. With a
    rate of zero, without a generator or in eval mode the module is the identity.
    """

    def __init__(self, block_size: int = 5) -> None:
        super().__init__()
        self.block_size = block_size
        self.rate = 0.0
        self.generator: torch.Generator | None = None
        self.share: tuple[range, int] | None = None
        """Which rows of how large a batch these samples are; None if they are all."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, D, H, W) with blocks dropped and the rest scaled so that the mean over voxels is kept."""
        if not self.training or self.rate == 0.0 or self.generator is None:
            return x
        return x * self.mask(x).to(x)

    def mask(self, x: Tensor) -> Tensor:
        """The factors (N, 1, D, H, W) for `x`: 0 in the blocks, elsewhere D·H·W over the voxels kept."""
        b, volume = self.block_size, x.shape[2:]
        # A block may reach over the border, so that every voxel lies in as many possible blocks, b³, and is
        # dropped with the same probability. (The paper's own blocks keep inside, and drop the middle more
        # often; its equation 1 for their density ignores that blocks overlap.)
        density = 1 - (1 - self.rate) ** (1 / b**3)
        rows, total = self.share or (range(len(x)), len(x))
        drawn = torch.rand((total, 1, *(length + b - 1 for length in volume)), generator=self.generator)
        starts = drawn[rows.start : rows.stop] < density
        dropped = starts.float()
        for kernel in ((b, 1, 1), (1, b, 1), (1, 1, b)):  # grow starts to blocks by axis: 3·b reads instead of b³
            dropped = functional.max_pool3d(dropped, kernel, stride=1)
        kept = 1 - dropped  # (N, 1, D, H, W)
        # Normalised by sample rather than by batch: a sample's output does not depend on its neighbours.
        mask: Tensor = kept * (volume.numel() / kept.sum((1, 2, 3, 4), keepdim=True).clamp(min=1))
        return mask
