"""A translator: two generators, which make contrast CTs non-contrast and the reverse, and the window they see HU in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ucadi.ct.translation import Window
from ucadi.errors import FormatError
from ucadi.fed.update import check_finite
from ucadi.formats import container
from ucadi.formats.container import Metadata
from ucadi.formats.signed import Fields
from ucadi.kinds import Format

FORMAT = Format.TRANSLATOR.id


@dataclass(frozen=True)
class Translator:
    """Both generators. `architecture` says what networks they are and how they were trained; `origin` holds the
    digests of the datasets and the recipe; `digest` is the SHA-256 of the file."""

    arrays: Mapping[str, NDArray[np.float32]]
    architecture: Metadata
    window: Window
    origin: Metadata
    digest: str = ""


def write(path: Path, translator: Translator, *, force: bool = False) -> None:
    """Writes a translator; the same one always gives the same bytes."""
    check_finite(translator.arrays)
    metadata = {
        **Format.TRANSLATOR.head,
        "architecture": translator.architecture,
        "window_hu": [translator.window.low, translator.window.high],
        "origin": translator.origin,
    }
    container.write(path, translator.arrays, metadata, force=force)


def read(path: Path) -> Translator:
    """Reads a translator, memory-mapped and checked to be finite float32."""
    held = container.read(path, FORMAT)
    fields = Fields(held.metadata, path.name)
    window: Any = held.metadata.get("window_hu")
    if not isinstance(window, list) or len(window) != 2 or any(type(end) is not int for end in window):
        raise FormatError(f"{path.name}: window_hu is not two whole numbers", hint=container.GET_AGAIN)
    for name, tensor in held.tensors.items():
        if tensor.dtype != np.float32:
            raise FormatError(f"{path.name}: tensor {name} is {tensor.dtype}, not float32")
    check_finite(held.tensors)
    return Translator(
        held.tensors,
        fields.object("architecture").values,
        Window(*window),
        fields.object("origin").values,
        container.file_digest(path),
    )
