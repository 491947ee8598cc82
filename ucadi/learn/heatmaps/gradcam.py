"""Grad-CAM (Selvaraju et al. 2017; paper, Fig. 3c) and its kin: where in a slab the network saw a diagnosis.

By default they look at the last feature map, after the last norm and activation: the deepest layer that still
has places. From there to the logits there are only the mean over places and the linear layer, so that there
Grad-CAM, HiResCAM and the class activation map of Zhou et al. (2016) are one and the same, up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable
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
    method: str = "grad-cam",
    layer: str | None = None,
) -> Heatmaps:
    """The heatmaps of a case's slabs (repeats, 1, 16, H, W) for one diagnosis, the index of a logit.

    `method` is one of METHODS; `layer` the name of a module with a map of features, None for the last map.
    Raises UsageError for other names, MismatchError for slabs of another shape than the network's or a logit that it
    does not have, FormatError for values that are not finite.
    """
    classes = model.architecture.classes
    if not 0 <= diagnosis < classes:
        raise MismatchError(f"no diagnosis {diagnosis}: the network knows 0 to {classes - 1}")
    x = as_input(model, slabs, case=0).to(next(model.parameters()).device)  # (repeats, 1, 16, H, W)
    model.eval()
    maps = activation_maps(model, x, diagnosis, method, layer).relu()  # (repeats, 1, 4, H/4, W/4)
    maps = functional.interpolate(maps, size=x.shape[2:], mode="trilinear", align_corners=False)[:, 0]
    maxima = maps.amax(dim=(1, 2, 3))  # (repeats,)
    values = maps / maxima.clamp(min=torch.finfo(maps.dtype).tiny)[:, None, None, None]
    return Heatmaps(values.cpu().numpy(), maxima.cpu().numpy())


def activation_maps(
    model: Classifier, x: torch.Tensor, diagnosis: int, method: str = "grad-cam", layer: str | None = None
) -> torch.Tensor:
    """Maps before the ReLU: slabs (N, 1, 16, H, W) to (N, 1, d, h, w), the grid of the layer.

    Gradients are those of the logit itself. Grad-CAM's are summed over places, not averaged: of the last layer the
    mean over all places of a map, plus the bias, is then the logit, and the unit of a map is the logit's.
    """
    if method not in METHODS:
        raise UsageError(f"no method {method!r}", hint="one of: " + ", ".join(METHODS))
    if layer is None:
        with torch.no_grad():
            features = model.features(x)  # (N, C, d, h, w)
        with torch.enable_grad():
            features.requires_grad_()
            logits = model.classify(features)  # (N, 4); the samples do not mix, so one backward pass serves all
            (gradient,) = torch.autograd.grad(logits[:, diagnosis].sum(), features)
    else:
        features, gradient = _at(model, x, diagnosis, layer)
    return METHODS[method](features.detach(), gradient)


def _grad_cam(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Equations 1 and 2 of Selvaraju et al. (ICCV 2017)."""
    return (gradient.sum(dim=_PLACES, keepdim=True) * features).sum(dim=1, keepdim=True)


def _grad_cam_plus_plus(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Equations 10 and 19 of Chattopadhay et al. (WACV 2018), of the logit's exponential, whose factor drops out."""
    square, cube = gradient**2, gradient**3
    denominator = 2 * square + features.sum(dim=_PLACES, keepdim=True) * cube
    alpha = torch.where(denominator != 0, square / torch.where(denominator != 0, denominator, 1), 0)
    return ((alpha * gradient.relu()).sum(dim=_PLACES, keepdim=True) * features).sum(dim=1, keepdim=True)


def _hires_cam(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Draelos and Carin (2020): each place by its own gradient. Scaled so that of the last layer it is Grad-CAM."""
    places = features[0, 0].numel()
    return places * (gradient * features).sum(dim=1, keepdim=True)


def _layer_cam(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Jiang et al. (IEEE TIP 2021): each place by its own gradient, where that speaks for the diagnosis."""
    places = features[0, 0].numel()
    return places * (gradient.relu() * features).sum(dim=1, keepdim=True)


_PLACES = (2, 3, 4)

METHODS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "hires-cam": _hires_cam,
    "layer-cam": _layer_cam,
}
"""From features and the logit's gradient, both (N, C, d, h, w), to maps (N, 1, d, h, w)."""


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
