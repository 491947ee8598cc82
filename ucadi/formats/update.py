"""Updates and aggregates: what one site's training changed, and the exact sum of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ucadi.errors import FormatError
from ucadi.fed.averaging import Aggregate, Sum
from ucadi.fed.update import Privacy, Update, check_finite
from ucadi.formats import container
from ucadi.formats.container import Container, Stream
from ucadi.formats.signed import Fields
from ucadi.kinds import Format

UPDATE_FORMAT = Format.UPDATE.id
AGGREGATE_FORMAT = Format.AGGREGATE.id


def write_update(path: Path, update: Update, *, force: bool = False) -> None:
    """Writes one site's update."""
    metadata = {
        **Format.UPDATE.head,
        "site": update.site,
        "base": update.base,
        "examples": update.examples,
        "epochs": update.epochs,
    }
    if update.privacy:
        metadata["privacy"] = asdict(update.privacy)
    if update.plan:
        metadata["plan"] = update.plan
    container.write(path, update.deltas, metadata, force=force)


def read_update(path: Path) -> Update:
    """Reads one site's update, memory-mapped and checked to be finite float32."""
    return parse_update(container.read(path, UPDATE_FORMAT), path.name)


def parse_update(held: Container, name: str) -> Update:
    """The update that a container holds."""
    for tensor_name, tensor in held.tensors.items():
        if tensor.dtype != np.float32:
            raise FormatError(f"{name}: tensor {tensor_name} is {tensor.dtype}, not float32")
    fields = Fields(held.metadata, name)
    update = Update(
        fields.text("site"),
        fields.digest("base"),
        fields.number("examples", least=1),
        fields.number("epochs", least=1),
        held.tensors,
        _privacy(fields.object("privacy")) if "privacy" in fields.values else None,
        fields.digest("plan") if "plan" in fields.values else None,
    )
    check_finite(update.deltas)
    return update


def _privacy(fields: Fields) -> Privacy:
    return Privacy(fields.real("epsilon"), fields.real("delta"), fields.real("noise"), fields.real("clip_norm"))


def write_aggregate(path: Path, aggregate: Aggregate, *, force: bool = False) -> None:
    """Writes a sum.

    The file is a function of the sum and of who is in it: an aggregate that was added in the clear and
    one that was decrypted are the same file.
    """
    write_sum(
        path,
        aggregate.total,
        base=aggregate.base,
        plan=aggregate.plan,
        sites=aggregate.sites,
        rule=aggregate.rule,
        force=force,
    )


def write_sum(
    path: Path,
    total: Sum | Stream,
    *,
    base: str,
    plan: str,
    sites: Sequence[str],
    rule: str = "mean",
    force: bool = False,
) -> None:
    """Writes a sum that may be made while it is written."""
    metadata = {**Format.AGGREGATE.head, "base": base, "plan": plan, "sites": list(sites)}
    if rule != "mean":  # an encrypted sum can be nothing else, and must be the same file
        metadata["rule"] = rule
    container.write(path, {"sum": total}, metadata, force=force)


def read_aggregate(path: Path) -> Aggregate:
    """Reads a sum."""
    return parse_aggregate(container.read(path, AGGREGATE_FORMAT), path.name)


def parse_aggregate(held: Container, name: str) -> Aggregate:
    """The sum that a container holds."""
    fields = Fields(held.metadata, name)
    total = held.tensors.get("sum")
    if set(held.tensors) != {"sum"} or total is None or total.dtype != np.int32 or total.ndim != 1 or not len(total):
        raise FormatError(f"{name}: an aggregate holds one vector of 32-bit integers")
    rule = fields.text("rule") if "rule" in held.metadata else "mean"
    return Aggregate(fields.digest("base"), fields.digest("plan"), tuple(fields.texts("sites")), total, rule)
