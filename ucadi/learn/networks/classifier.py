"""What all networks have in common: a last feature map, its mean over places, and a linear layer to the logits."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ucadi.learn.memory import recomputed
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.dropblock import DropBlock3D


class Classifier(nn.Module):
    """Slabs (N, 1, 16, H, W) to logits (N, 4) in the order of `ucadi.labels.Diagnosis`.

    A network makes its layers in the order of its published description, `classifier` last, and says how to get to
    the last feature map.
    """

    classifier: nn.Linear

    saves_memory: bool = False
    """Whether training computes the inside of blocks twice rather than keep it."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The last feature map, after its activation, where Grad-CAM looks: (N, 1, 16, H, W) to (N, C, D, H', W')."""

    def through(self, blocks: nn.Sequential, x: Tensor) -> Tensor:
        """One block after another."""
        if self.saves_memory and self.training:
            return recomputed(blocks, x)
        y: Tensor = blocks(x)
        return y

    def classify(self, features: Tensor) -> Tensor:
        """The logits of a feature map: (N, C, D, H', W') to (N, 4)."""
        logits: Tensor = self.classifier(features.mean(dim=(2, 3, 4)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))

    def drop(self, rate: float, generator: torch.Generator | None, share: tuple[range, int] | None = None) -> None:
        """From now on any DropBlocks that it has drop `rate` of their voxels, drawn from `generator`, in training.

        `share` says which rows of how large a batch will be given, where they are not all.
        """
        for module in self.modules():
            if isinstance(module, DropBlock3D):
                module.rate, module.generator, module.share = rate, generator, share
