"""Grad-CAM (Selvaraju et al. 2017; paper, Fig. 3c): where in a slab the network saw a diagnosis.

By default it looks at the last feature map, after the last norm and activation: the deepest layer that still has
places. From there to the logits there are only the mean over places and the linear layer, so that there Grad-CAM is
the class activation map of Zhou et al. (2016), up to a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ucadi.errors import MismatchError, UsageError
from ucadi.learn.inference import as_input
from ucadi.learn.networks.classifier import Classifier


@dataclass(frozen=True)
class Heatmaps:
    """The Grad-CAM of each sampling of a case for one diagnosis."""

    values: NDArray[np.float32]
    """(repeats, 16, H, W) in [0, 1]: each sampling's map over its own maximum, zeros where nothing speaks for it."""
    maxima: NDArray[np.float32]
    """(repeats,): what 1 stands for in each map, in logits; zero if nothing in the slab speaks for the diagnosis."""


def gradcam(
    model: Classifier,
    slabs: NDArray[np.float32],
    diagnosis: int,
    *,
    fill: NDArray[np.float32] | None = None,
    layer: str | None = None,
) -> Heatmaps:
    """The heatmaps of a case's slabs for one diagnosis, as a `Method`. Nothing is covered, so `fill` is not used.

    `layer` is the name of a module with a feature map, None for the last one.
    """
    del fill
    classes = model.architecture.classes
    if not 0 <= diagnosis < classes:
        raise MismatchError(f"no diagnosis {diagnosis}: the network knows 0 to {classes - 1}")
    x = as_input(model, slabs, case=0).to(next(model.parameters()).device)  # (repeats, 1, 16, H, W)
    model.eval()
    maps = activation_maps(model, x, diagnosis, layer).relu()  # (repeats, 1, 4, H/4, W/4)
    maps = functional.interpolate(maps, size=x.shape[2:], mode="trilinear", align_corners=False)[:, 0]
    maxima = maps.amax(dim=(1, 2, 3))  # (repeats,)
    values = maps / maxima.clamp(min=torch.finfo(maps.dtype).tiny)[:, None, None, None]
    return Heatmaps(values.cpu().numpy(), maxima.cpu().numpy())


def activation_maps(model: Classifier, x: torch.Tensor, diagnosis: int, layer: str | None = None) -> torch.Tensor:
    """Maps before the ReLU: slabs (N, 1, 16, H, W) to (N, 1, d, h, w), the grid of the layer.

    Equations 1 and 2 of Selvaraju et al. (ICCV 2017), with gradients of the logit itself, summed over places, not
    averaged: of the last layer the mean over all places of a map, plus the bias, is then the logit, and the unit of a
    map is the logit's.
    """
    if layer is None:
        with torch.no_grad():
            features = model.features(x)  # (N, C, d, h, w)
        with torch.enable_grad():
            features.requires_grad_()
            logits = model.classify(features)  # (N, 4); the samples do not mix, so one backward pass serves all
            (gradient,) = torch.autograd.grad(logits[:, diagnosis].sum(), features)
    else:
        features, gradient = _at(model, x, diagnosis, layer)
    weights = gradient.sum(dim=(2, 3, 4), keepdim=True)  # (N, C, 1, 1, 1)
    return (weights * features.detach()).sum(dim=1, keepdim=True)


def _at(model: Classifier, x: torch.Tensor, diagnosis: int, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module gives out, and the gradient of the logit there."""
    modules: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if name}
    if layer not in modules:
        raise UsageError(f"the network has no layer {layer!r}", hint="for example: " + ", ".join(list(modules)[:12]))
    given: list[torch.Tensor] = []
    hook = modules[layer].register_forward_hook(lambda _module, _inputs, output: given.append(output))
    try:
        with torch.enable_grad():
            logits = model(x.requires_grad_())
            features = given[-1]
            if features.ndim != x.ndim:
                raise UsageError(f"layer {layer} has no places", hint="choose a layer before the pooling")
            (gradient,) = torch.autograd.grad(logits[:, diagnosis].sum(), features)
    finally:
        hook.remove()
    return features, gradient


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
