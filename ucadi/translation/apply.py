"""Translation with a trained generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ucadi.errors import FormatError
from ucadi.learn.networks.registry import check_arrays, load_arrays, state_arrays
from ucadi.learn.state import Arrays
from ucadi.translation.networks import Generator, TranslationNetworks, build
from ucadi.translation.recipe import KINDS, TranslatorArchitecture

BATCH = 8
"""Images that are translated at a time."""


def generator_arrays(model: TranslationNetworks) -> dict[str, NDArray[np.float32]]:
    """Copies of both generators' weights, sorted by name; the critics are of no more use."""
    return state_arrays(model.generators)


def restore_generators(described: Mapping[str, Any], arrays: Arrays) -> dict[str, Generator]:
    """Both generators by the kind that they make. FormatError for an unknown architecture, MismatchError for tensors
    that do not fit it."""
    architecture = TranslatorArchitecture.parse(described)
    with torch.device("meta"):  # takes no memory: see `ucadi.learn.networks.registry.restore`
        check_arrays(TranslationNetworks(architecture).generators, arrays)
    model = build(architecture, seed=0)
    load_arrays(model.generators, arrays)
    return {kind: model.generators[kind] for kind in KINDS}  # type: ignore[misc]


def changes(generator: Generator, images: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """What the generator would change in images (N, depth, H, W), in their units; in float32, batch by batch.

    FormatError where the result is not finite.
    """
    generator.eval()
    device = next(generator.parameters()).device
    for batch in images:
        for start in range(0, len(batch), BATCH):
            x = torch.from_numpy(np.ascontiguousarray(batch[start : start + BATCH])).to(device)
            with torch.inference_mode():
                change = (generator(x) - x).cpu().numpy()
            if not np.isfinite(change).all():
                raise FormatError("the translator gives values that are not finite", hint="train it again")
            yield change
