"""Prediction (paper, Methods): the probabilities of every sampling of a case; averaging them is up to the caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.learn.engines import Engine, exact
from ucadi.learn.networks.classifier import Classifier


def predict(
    model: Classifier, slabs: Iterable[NDArray[np.float32]], engine: Engine | None = None
) -> Iterator[NDArray[np.float32]]:
    """For each case's slabs (repeats, 1, 16, H, W) their probabilities (repeats, 4), one case at a time.

    A case's repeats are one batch and no two cases share one, so that what a case gets never depends on
    which others are asked for. Float32, also for networks trained in bfloat16, unless an `engine` is given (see
    `ucadi.learn.engines`).
    Raises MismatchError for slabs of another shape than the network's, FormatError for values not finite.
    """
    model.eval()
    device = next(model.parameters()).device
    run = engine or exact(model)
    for case, slab in enumerate(slabs):
        x = as_input(model, slab, case).to(device)  # (repeats, 1, 16, H, W)
        with torch.inference_mode():  # inside the loop: the mode must not leak to whoever iterates
            probabilities = run(x)  # (repeats, 4)
        yield probabilities.cpu().numpy()


def as_input(model: Classifier, slabs: NDArray[np.float32], case: int) -> torch.Tensor:
    """The slabs (repeats, 1, 16, H, W) of one case as a tensor, after the checks that `predict` promises."""
    a = model.architecture
    if slabs.ndim != 5 or slabs.shape[0] == 0 or slabs.shape[1:] != (1, a.slices, a.size, a.size):
        raise MismatchError(
            f"case {case}: slabs are {slabs.shape}, the network takes (repeats, 1, {a.slices}, {a.size}, {a.size})",
            hint="sample with the slices and the size of the network's architecture",
        )
    if not np.isfinite(slabs).all():
        raise FormatError(f"case {case}: slabs have values that are not finite", hint="preprocess the case again")
    return torch.from_numpy(np.ascontiguousarray(slabs, dtype=np.float32))
