"""Predictions: the probabilities that a model gives a dataset's cases, each of its samplings kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ucadi.errors import FormatError
from ucadi.formats import container
from ucadi.formats.container import GET_AGAIN, Container
from ucadi.formats.signed import Fields
from ucadi.kinds import Format
from ucadi.labels import LABELS

FORMAT = Format.PREDICTIONS.id

UNLABELLED = -1

_ID_BYTES = 8


@dataclass(frozen=True)
class Predictions:
    """What a model says of a dataset, case by case.

    `probabilities` is float32 (cases, samplings, classes); `labels` int32 (cases,), -1 where unknown; `cases`
    and `patients` are the dataset's salted identifiers, 16 hex digits each. `model` and `dataset` are digests.
    """

    model: str
    dataset: str
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Probabilities averaged over the samplings (paper, Methods), float64 (cases, classes)."""
        averaged: npt.NDArray[np.float64] = self.probabilities.mean(axis=1, dtype=np.float64)
        return averaged


def write(path: Path, predictions: Predictions, *, force: bool = False) -> None:
    """Writes predictions."""
    metadata = {
        **Format.PREDICTIONS.head,
        "model": predictions.model,
        "dataset": predictions.dataset,
        "classes": list(LABELS),
    }
    tensors: dict[str, npt.NDArray[Any]] = {
        "cases": _to_bytes(predictions.cases),
        "labels": predictions.labels,
        "patients": _to_bytes(predictions.patients),
        "probabilities": predictions.probabilities,
    }
    container.write(path, tensors, metadata, force=force)


def read(path: Path) -> Predictions:
    """Reads predictions and checks that they are probabilities."""
    return parse(container.read(path, FORMAT), path.name)


def parse(held: Container, name: str) -> Predictions:
    """The predictions that a container holds."""
    fields = Fields(held.metadata, name)
    if fields.texts("classes") != list(LABELS):
        raise FormatError(f"{name}: predictions of other classes than {', '.join(LABELS)}", hint=GET_AGAIN)
    if set(held.tensors) != {"cases", "labels", "patients", "probabilities"}:
        raise FormatError(f"{name}: holds other tensors than predictions'", hint=GET_AGAIN)
    cases, labels, patients, probabilities = (held.tensors[key] for key in sorted(held.tensors))
    count = labels.size
    samplings = probabilities.shape[1] if probabilities.ndim == 3 else 0
    if [(tensor.dtype.str, tensor.shape) for tensor in (cases, labels, patients, probabilities)] != [
        ("|u1", (count, _ID_BYTES)),
        ("<i4", (count,)),
        ("|u1", (count, _ID_BYTES)),
        ("<f4", (count, max(1, samplings), len(LABELS))),
    ]:
        raise FormatError(f"{name}: tensors of other shapes than predictions'", hint=GET_AGAIN)
    # NaN fails both comparisons
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise FormatError(f"{name}: holds values that are no probabilities", hint=GET_AGAIN)
    if not ((labels >= UNLABELLED) & (labels < len(LABELS))).all():
        raise FormatError(f"{name}: holds labels that are none", hint=GET_AGAIN)
    return Predictions(
        fields.digest("model"), fields.digest("dataset"), _to_hex(cases), _to_hex(patients), labels, probabilities
    )


def _to_bytes(identifiers: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(identifiers)), dtype=np.uint8).reshape(-1, _ID_BYTES)


def _to_hex(identifiers: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(row.tobytes().hex() for row in identifiers)
