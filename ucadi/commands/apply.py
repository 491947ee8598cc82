"""ucadi apply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output
from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.averaging import apply_mean, apply_update
from ucadi.formats import container
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights
from ucadi.rounds.opening import check_aggregate
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class ApplyResult:
    """The weights made; every site that applies the same change to the same base gets the same digest."""

    weights: Path
    digest: str

    def __str__(self) -> str:
        return f"{self.weights}: sha256 {self.digest}"


def apply(
    base: Annotated[Path, typer.Argument(help="The weights that the change was made from.")],
    change: Annotated[Path, typer.Argument(help="An aggregate, or one site's update.")],
    *,
    output: Output,
    plan: Annotated[Path | None, typer.Option(help="The round's signed plan; an aggregate needs it.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The federation's signed roster; an aggregate needs it.")] = None,
    force: Force = False,
) -> ApplyResult:
    """Add a change to the weights that it was made from: the next global model, or one site's own.

    Deterministic: every site computes the same bytes and can check the others' result.
    """
    weights = weights_format.read(base)
    held = container.read(change)
    match held.metadata.get("format"):
        case update_format.UPDATE_FORMAT:
            update = update_format.parse_update(held, change.name)
            _check_base(update.base, weights, change)
            following = apply_update(weights.arrays, update)
        case update_format.AGGREGATE_FORMAT:
            if plan is None or roster is None:
                raise UsageError("an aggregate is applied under its round's plan", hint="--plan and --roster")
            aggregate = update_format.parse_aggregate(held, change.name)
            _check_base(aggregate.base, weights, change)
            this = Round.read(plan, roster)
            check_aggregate(aggregate, this, change.name)
            following = apply_mean(
                weights.arrays, aggregate, this.plan.layout, cap=this.plan.weight_cap, bits=this.bits
            )
        case other:
            raise FormatError(
                f"{change.name}: a {other} file is no change to weights", hint="decrypt a ciphertext first"
            )
    origin = {"base": weights.digest, "change": container.file_digest(change)}
    weights_format.write(output, Weights(following, weights.architecture, origin), force=force)
    return ApplyResult(output, container.file_digest(output))


def _check_base(made_from: str, weights: Weights, change: Path) -> None:
    if made_from != weights.digest:
        raise MismatchError(
            f"{change.name}: made from base {made_from[:8]}…, these weights are {weights.digest[:8]}…",
            hint="apply it to the weights that its round began with",
        )
