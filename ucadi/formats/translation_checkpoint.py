"""Where the training of a translator stands, for itself to go on from; it stays where it is, as it holds images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ucadi.errors import FormatError
from ucadi.formats import container
from ucadi.formats.checkpoint import AFRESH, of_training, part
from ucadi.formats.container import Metadata
from ucadi.formats.signed import Fields
from ucadi.kinds import Format
from ucadi.translation.recipe import KINDS, Losses, TranslationRecord, TranslationState

FORMAT = Format.TRANSLATION_CHECKPOINT.id

_PARTS = ("networks", "first", "second", "pools")


def write(path: Path, training: Metadata, state: TranslationState) -> None:
    """Replaces the checkpoint at `path`, whole or not at all. `training` is what it belongs to, as JSON."""
    metadata = {
        **Format.TRANSLATION_CHECKPOINT.head,
        "training": training,
        "next_epoch": state.next_epoch,
        "next_step": state.next_step,
        "updates": state.updates,
        "losses": [asdict(losses) for losses in state.losses],
        "records": [asdict(record) for record in state.records],
    }
    tensors = {f"{name}/{key}": array for name in _PARTS for key, array in getattr(state, name).items()}
    container.write(path, tensors, metadata, force=True)


def read(path: Path, training: Metadata) -> TranslationState | None:
    """The state at `path`, None if there is none yet; raises what `ucadi.formats.checkpoint.read` raises."""
    held = of_training(path, FORMAT, training)
    if held is None:
        return None
    fields, tensors = Fields(held.metadata, path.name), held.tensors
    pools = part(tensors, "pools")
    if set(pools) != set(KINDS) or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        raise FormatError(f"{path.name}: not the tensors of a checkpoint", hint=AFRESH)
    return TranslationState(
        next_epoch=fields.number("next_epoch"),
        next_step=fields.number("next_step"),
        updates=fields.number("updates"),
        networks=part(tensors, "networks"),
        first=part(tensors, "first"),
        second=part(tensors, "second"),
        pools=pools,
        losses=tuple(map(_losses, fields.objects("losses"))),
        records=tuple(map(_record, fields.objects("records"))),
    )


def _record(fields: Fields) -> TranslationRecord:
    return TranslationRecord(fields.number("epoch"), fields.real("learning_rate"), _losses(fields.object("losses")))


def _losses(fields: Fields) -> Losses:
    return Losses(*(fields.real(name) for name in ("adversarial", "consistency", "identity", "critic")))
