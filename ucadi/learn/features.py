"""Features of CTs to measure distances between sets by, which need no download.

Either those of a fixed network that is never trained: its weights follow from a seed. Or those of the project's own
classifier before its last layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ucadi.learn.inference import as_input
from ucadi.learn.networks.classifier import Classifier

SEED = 2021
"""Of the fixed network: features of different seeds are not comparable."""

CHANNELS = (32, 64, 128)


def fixed_features(images: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Features of slices (1, H, W) in -1..1, one after the other: float32 (images, 448).

    Three convolutions that halve the image, each with a rectifier; the features are the mean and the deviation of every
    channel.
    Such convolutions capture textures well, though they are random (Ustyuzhaninov et al. 2017).
    """
    layers = _fixed_layers()
    features = []
    for image in images:
        x = torch.from_numpy(np.ascontiguousarray(image[np.newaxis]))
        found: list[Tensor] = []
        with torch.inference_mode():
            for layer in layers:
                x = layer(x).relu()
                found += [x.mean(dim=(2, 3))[0], x.std(dim=(2, 3), correction=0)[0]]
        features.append(torch.cat(found).numpy())
    return np.stack(features)


def _fixed_layers() -> list[nn.Conv2d]:
    generator = torch.Generator().manual_seed(SEED)
    layers = []
    for before, after in zip((1, *CHANNELS), CHANNELS, strict=False):
        with torch.random.fork_rng(devices=[]):
            layer = nn.Conv2d(before, after, 5, stride=2, padding=2)
        nn.init.kaiming_uniform_(layer.weight, generator=generator)
        assert layer.bias is not None
        nn.init.uniform_(layer.bias, -0.5, 0.5, generator=generator)
        layers.append(layer)
    return layers


def classifier_features(model: Classifier, slabs: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """What a classifier's last layer sees of each case's slabs (repeats, 1, 16, H, W), the mean: (cases, channels)."""
    model.eval()
    device = next(model.parameters()).device
    features = []
    for case, slab in enumerate(slabs):
        x = as_input(model, slab, case).to(device)
        with torch.inference_mode():
            features.append(model.features(x).mean(dim=(0, 2, 3, 4)).cpu().numpy())
    return np.stack(features)
