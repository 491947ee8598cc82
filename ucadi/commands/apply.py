"""ucadi apply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output, refuse_unused
from ucadi.errors import FormatError, UsageError
from ucadi.fed.averaging import apply_update
from ucadi.fed.norms import with_norms
from ucadi.formats import container
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights
from ucadi.rounds.following import check_base, next_weights
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
    local_norms: Annotated[
        Path | None, typer.Option(help="A site's own update, for its own model, where norms stay at home.")
    ] = None,
    force: Force = False,
) -> ApplyResult:
    r"""Add a change to the weights that it was made from: the next global model, or one site's own.

    Deterministic: every site computes the same bytes and can check the others' result.

    Example:
        ucadi apply base.weights opened.aggregate \
            --plan plan.json --roster federation.json -o next.weights
    """
    weights = weights_format.read(base)
    held = container.read(change, update_format.UPDATE_FORMAT, update_format.AGGREGATE_FORMAT)
    digest = container.file_digest(change)
    match held.metadata.get("format"):
        case update_format.UPDATE_FORMAT:
            signed = {"--plan": plan, "--roster": roster, "--local-norms": local_norms}
            refuse_unused(signed, "one site's update is added as it is, under no plan")
            update = update_format.parse_update(held, change.name)
            check_base(update.base, weights, change.name)
            origin = {"base": weights.digest, "change": digest}
            following = Weights(apply_update(weights.arrays, update), weights.architecture, origin)
        case update_format.AGGREGATE_FORMAT:
            if plan is None or roster is None:
                raise UsageError("an aggregate is applied under its round's plan", hint="--plan and --roster")
            aggregate, round_ = update_format.parse_aggregate(held, change.name), Round.read(plan, roster)
            following = next_weights(weights, aggregate, round_, change=digest, name=change.name)
            if local_norms is not None:
                following = _with_norms(following, weights, local_norms, round_)
        case other:
            raise FormatError(
                f"{change.name}: a {other} file is no change to weights", hint="decrypt a ciphertext first"
            )
    weights_format.write(output, following, force=force)
    return ApplyResult(output, container.file_digest(output))


def _with_norms(shared: Weights, base: Weights, norms: Path, round_: Round) -> Weights:
    own = update_format.read_update(norms)
    arrays = with_norms(shared.arrays, base.arrays, own, round_.plan.layout)
    return Weights(arrays, shared.architecture, {**shared.origin, "norms": container.file_digest(norms)})
