"""What all networks have in common: a last feature map, its mean over places, and a linear layer to the logits."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from ucadi.learn.architecture import Architecture
from ucadi.learn.dropblock import DropBlock3D


class Classifier(nn.Module):
    """Slabs (N, 1, 16, H, W) to logits (N, 4) in the order of `ucadi.labels.Diagnosis`.

    A network makes its layers in the order of its published description, `classifier` last, and says how to get to
    the last feature map.
    """

    slope: ClassVar[float] = 0.0
    """Negative slope of its activations, by which its weights are initialised."""

    classifier: nn.Linear

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The last feature map, after its activation, where Grad-CAM looks: (N, 1, 16, H, W) to (N, C, D, H', W')."""

    def classify(self, features: Tensor) -> Tensor:
        """The logits of a feature map: (N, C, D, H', W') to (N, 4)."""
        logits: Tensor = self.classifier(features.mean(dim=(2, 3, 4)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))

    def drop(self, rate: float, generator: torch.Generator | None) -> None:
        """From now on any DropBlocks that it has drop `rate` of their voxels, drawn from `generator`, in training."""
        for module in self.modules():
            if isinstance(module, DropBlock3D):
                module.rate, module.generator = rate, generator
