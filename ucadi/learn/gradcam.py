"""Grad-CAM (Selvaraju et al. 2017; paper, Fig. 3c): where in a slab the network saw a diagnosis.

It looks at the last feature map, after the last norm and activation: the deepest layer that still has
places. From there to the logits there are only the mean over places and the linear layer, so that
Grad-CAM and the class activation map of Zhou et al. (2016) are one and the same, up to a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ucadi.errors import MismatchError
from ucadi.learn.classifier import Classifier
from ucadi.learn.inference import as_input


@dataclass(frozen=True)
class Heatmaps:
    """The Grad-CAM of each sampling of a case for one diagnosis."""

    values: NDArray[np.float32]
    """(repeats, 16, H, W) in [0, 1]: each sampling's map over its own maximum, zeros where nothing speaks for it."""
    maxima: NDArray[np.float32]
    """(repeats,): what 1 stands for in each map, in logits; zero if nothing in the slab speaks for the diagnosis."""


def gradcam(model: Classifier, slabs: NDArray[np.float32], diagnosis: int) -> Heatmaps:
    """The heatmaps of a case's slabs (repeats, 1, 16, H, W) for one diagnosis, the index of a logit.

    Raises MismatchError for slabs of another shape than the network's or a logit that it does not have,
    FormatError for values that are not finite.
    """
    classes = model.architecture.classes
    if not 0 <= diagnosis < classes:
        raise MismatchError(f"no diagnosis {diagnosis}: the network knows 0 to {classes - 1}")
    x = as_input(model, slabs, case=0).to(next(model.parameters()).device)  # (repeats, 1, 16, H, W)
    model.eval()
    maps = activation_maps(model, x, diagnosis).relu()  # (repeats, 1, 4, H/4, W/4)
    maps = functional.interpolate(maps, size=x.shape[2:], mode="trilinear", align_corners=False)[:, 0]
    maxima = maps.amax(dim=(1, 2, 3))  # (repeats,)
    values = maps / maxima.clamp(min=torch.finfo(maps.dtype).tiny)[:, None, None, None]
    return Heatmaps(values.cpu().numpy(), maxima.cpu().numpy())


def activation_maps(model: Classifier, x: torch.Tensor, diagnosis: int) -> torch.Tensor:
    """Equations 1 and 2 of Selvaraju et al. before the ReLU: slabs (N, 1, 16, H, W) to maps (N, 1, 4, H/4, W/4).

    The gradient is summed over places, not averaged: the mean over all places of a map, plus the bias, is
    then the logit itself, and the unit of a map is the logit's.
    """
    with torch.no_grad():
        features = model.features(x)  # (N, 120, 4, H/4, W/4)
    with torch.enable_grad():
        features.requires_grad_()
        logits = model.classify(features)  # (N, 4); the samples do not mix, so one backward pass serves all
        (gradient,) = torch.autograd.grad(logits[:, diagnosis].sum(), features)
    weights = gradient.sum(dim=(2, 3, 4), keepdim=True)  # (N, 120, 1, 1, 1)
    return (weights * features.detach()).sum(dim=1, keepdim=True)


def place(heatmaps: NDArray[np.float32], indices: NDArray[np.integer], slices: int) -> NDArray[np.float32]:
    """Heatmaps of slabs back on their volume: (repeats, 16, H, W) to (slices, H, W).

    `indices` (repeats, 16) are the slices of the volume that each slab took, in rising order, a slice more
    than once where the volume has fewer than 16. Between them a heatmap is interpolated linearly, beyond
    the first and the last it stays as it is there; then the mean over the repeats is taken.
    Raises MismatchError for indices of another shape or outside the volume, or that fall.
    """
    if heatmaps.ndim != 4 or indices.shape != heatmaps.shape[:2]:
        raise MismatchError(f"slice indices are {indices.shape} for heatmaps {heatmaps.shape}")
    if indices.min() < 0 or indices.max() >= slices or (np.diff(indices, axis=1) < 0).any():
        raise MismatchError(f"slice indices do not rise from 0 to below {slices}: {indices.tolist()}")
    volume = np.zeros((slices, *heatmaps.shape[2:]))
    for heatmap, taken in zip(heatmaps, indices, strict=True):
        volume += np.tensordot(_interpolation(taken, slices), heatmap, axes=1)
    return (volume / len(heatmaps)).astype(np.float32)


def _interpolation(taken: NDArray[np.integer], slices: int) -> NDArray[np.float64]:
    """The matrix (slices, 16) that interpolates linearly between the slices taken; copies of one share its part."""
    places, which, copies = np.unique(taken, return_inverse=True, return_counts=True)
    hats = np.array([np.interp(np.arange(slices), places, row) for row in np.eye(len(places))])  # (places, slices)
    matrix: NDArray[np.float64] = (hats / copies[:, None])[which].T
    return matrix
