"""Model weights: the floating-point tensors of a network's state, what network it is, and what it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucadi.errors import FormatError
from ucadi.fed.optimisers import Memory
from ucadi.fed.update import Arrays, check_finite
from ucadi.formats import container
from ucadi.formats.container import Metadata
from ucadi.formats.signed import Fields
from ucadi.kinds import Format

FORMAT = Format.WEIGHTS.id


@dataclass(frozen=True)
class Weights:
    """A model. `architecture` names the network and its sizes; `origin` the digests (or the seed) it came from.

    `memory` is what a server optimiser goes on with in the next round; `digest` is the SHA-256 of the file.
    """

    arrays: Arrays
    architecture: Metadata
    origin: Metadata
    digest: str = ""
    memory: Memory | None = None


def write(path: Path, weights: Weights, *, force: bool = False) -> None:
    """Writes weights; the same weights always give the same bytes."""
    check_finite(weights.arrays)
    metadata = {**Format.WEIGHTS.head, "architecture": weights.architecture, "origin": weights.origin}
    tensors = dict(weights.arrays)
    if weights.memory:
        check_finite(weights.memory.arrays)
        metadata["server"] = weights.memory.method
        tensors |= weights.memory.arrays
    container.write(path, tensors, metadata, force=force)


def read(path: Path) -> Weights:
    """Reads weights, memory-mapped and checked to be finite float32."""
    held = container.read(path, FORMAT)
    for name, tensor in held.tensors.items():
        if tensor.dtype != np.float32:
            raise FormatError(f"{path.name}: tensor {name} is {tensor.dtype}, not float32")
    check_finite(held.tensors)
    architecture, origin = held.metadata.get("architecture"), held.metadata.get("origin")
    if not isinstance(architecture, dict) or not isinstance(origin, dict):
        raise FormatError(f"{path.name}: does not say which network it is")
    arrays = {name: tensor for name, tensor in held.tensors.items() if "/" not in name}
    remembered = {name: tensor for name, tensor in held.tensors.items() if "/" in name}
    memory = Memory(Fields(held.metadata, path.name).text("server"), remembered) if remembered else None
    return Weights(arrays, architecture, origin, container.file_digest(path), memory)
