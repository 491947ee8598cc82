"""Occlusion (Zeiler and Fergus, ECCV 2014): what a diagnosis loses where healthy lung covers the slab.

A second opinion on a heatmap by gradients: no gradient and no layer, only the network's answers are used.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from ucadi.errors import MismatchError, UsageError
from ucadi.learn.heatmaps.gradcam import Heatmaps
from ucadi.learn.inference import as_input
from ucadi.learn.networks.classifier import Classifier
from ucadi.progress import track

BOX = 4, 1 / 6, 1 / 6
"""Slices, and shares of the rows and columns, that are covered at a time: 484 places in a slab."""

BATCH = 20
"""Covered slabs that go through the network together."""


def occlusion(
    model: Classifier,
    slabs: NDArray[np.float32],
    diagnosis: int,
    *,
    fill: NDArray[np.float32],
    layer: str | None = None,
) -> Heatmaps:
    """Heatmaps of a case's slabs for one diagnosis, as a `Method`. Looks at no layer: UsageError if one is named.

    A box filled with `fill` moves by its slices and by half its sides. Every voxel gets the mean loss of the logit over
    the boxes that cover it, and zero where the logit rather gains.
    """
    if layer is not None:
        raise UsageError("--layer: occlusion looks at no layer", hint="leave out --layer, or choose another --method")
    classes = model.architecture.classes
    if not 0 <= diagnosis < classes:
        raise MismatchError(f"no diagnosis {diagnosis}: the network knows 0 to {classes - 1}")
    x = as_input(model, slabs, case=0).to(next(model.parameters()).device)
    if fill.shape != (len(x),):
        raise MismatchError(f"fill is {fill.shape} for {len(x)} slabs")
    model.eval()
    jobs = track(zip(x, fill, strict=True), "Covering slabs", total=len(x))
    values = np.stack([_losses(model, slab, diagnosis, float(value)) for slab, value in jobs])
    maxima = values.max(axis=(1, 2, 3))
    shares = values / np.maximum(maxima, np.finfo(np.float32).tiny)[:, None, None, None]
    return Heatmaps(shares.astype(np.float32), maxima)


def _losses(model: Classifier, slab: torch.Tensor, diagnosis: int, fill: float) -> NDArray[np.float32]:
    """The mean losses of one slab (1, 16, H, W), as (16, H, W)."""
    shape = slab.shape[1:]
    box = min(BOX[0], shape[0]), max(2, round(shape[1] * BOX[1])), max(2, round(shape[2] * BOX[2]))
    steps = box[0], box[1] // 2, box[2] // 2
    sides = (_intervals(*axis) for axis in zip(shape, box, steps, strict=True))
    boxes: list[tuple[slice, ...]] = list(product(*sides))
    losses, covers = np.zeros(shape), np.zeros(shape)
    with torch.inference_mode():
        whole = float(model(slab[None])[0, diagnosis])
        for start in range(0, len(boxes), BATCH):
            some = boxes[start : start + BATCH]
            covered = slab.repeat(len(some), 1, 1, 1, 1)
            for number, place in enumerate(some):
                covered[number, 0][place] = fill
            for place, logit in zip(some, model(covered)[:, diagnosis].tolist(), strict=True):
                losses[place] += whole - logit
                covers[place] += 1
    return np.maximum(losses / covers, 0).astype(np.float32)


def _intervals(length: int, side: int, step: int) -> list[slice]:
    """Intervals of `side` that begin a step from one another and cover `length` to its end."""
    starts = [*range(0, max(1, length - side), step), max(0, length - side)]
    return [slice(start, start + side) for start in dict.fromkeys(starts)]
