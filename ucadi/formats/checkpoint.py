"""Checkpoints: where a training stands, for itself to go on from. They stay on the machine that trains,
readable by their owner only: that of a private training holds its secret seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ucadi.errors import FormatError, MismatchError
from ucadi.formats import container
from ucadi.formats.container import Container, Metadata
from ucadi.formats.signed import Fields
from ucadi.kinds import Format
from ucadi.learn.state import EpochRecord, TrainingState

FORMAT = Format.CHECKPOINT.id

AFRESH = "remove it to start afresh"
"""What to do about a checkpoint that does not fit."""

_PARTS = ("arrays", "momentum", "anchor", "best")


def write(path: Path, training: Metadata, state: TrainingState) -> None:
    """Replaces the checkpoint at `path`, whole or not at all. `training` is what it belongs to, as JSON."""
    metadata = {
        **Format.CHECKPOINT.head,
        "training": training,
        "next_epoch": state.next_epoch,
        "next_step": state.next_step,
        "losses": list(state.losses),
        "records": [asdict(record) for record in state.records],
    }
    if state.secret_seed is not None:
        metadata["secret_seed"] = f"{state.secret_seed:032x}"
    tensors = {f"{part}/{name}": array for part in _PARTS for name, array in getattr(state, part).items()}
    container.write(path, {**tensors, "probabilities": state.probabilities}, metadata, force=True)


def read(path: Path, training: Metadata) -> TrainingState | None:
    """The state at `path`, None if there is none yet.

    Raises MismatchError, naming what differs, for that of another training; FormatError for any other file.
    """
    held = of_training(path, FORMAT, training)
    return None if held is None else _state(held, path.name)


def of_training(path: Path, kind: str, training: Metadata) -> Container | None:
    """What a checkpoint of that format holds, None if there is none yet; raises what `read` raises."""
    if not path.exists():
        return None
    try:
        held = container.read(path, kind)
        theirs = Fields(held.metadata, path.name).object("training").values
    except FormatError as error:
        raise FormatError(error.message, hint=f"{path.name} is no checkpoint to go on from: {AFRESH}") from None
    different = [name for name in sorted(theirs.keys() | training.keys()) if theirs.get(name) != training.get(name)]
    if different:
        raise MismatchError(
            f"{path.name}: the checkpoint of another training: {', '.join(different)} differ",
            hint=f"train with the files and options that it was made with, or {AFRESH}",
        )
    return held


def _state(held: Container, name: str) -> TrainingState:
    fields = Fields(held.metadata, name)
    tensors = held.tensors
    if "probabilities" not in tensors or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        raise FormatError(f"{name}: not the tensors of a checkpoint", hint=AFRESH)
    return TrainingState(
        next_epoch=fields.number("next_epoch"),
        next_step=fields.number("next_step"),
        losses=tuple(fields.reals("losses")),
        probabilities=tensors["probabilities"],
        records=tuple(_record(record) for record in fields.objects("records")),
        secret_seed=int.from_bytes(fields.octets("secret_seed")) if "secret_seed" in fields.values else None,
        arrays=part(tensors, "arrays"),
        momentum=part(tensors, "momentum"),
        anchor=part(tensors, "anchor"),
        best=part(tensors, "best"),
    )


def part(tensors: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[np.float32]]:
    """The tensors whose names begin with `name` and a slash, without that."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _record(fields: Fields) -> EpochRecord:
    optional = {
        name: None if fields.values.get(name) is None else fields.real(name)
        for name in ("auc", "validation_loss", "validation_auc")
    }
    return EpochRecord(
        epoch=fields.number("epoch"),
        loss=fields.real("loss"),
        accuracy=fields.real("accuracy"),
        learning_rate=fields.real("learning_rate"),
        **optional,
    )
