"""ucadi round open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import (
    BatchSize,
    DropRate,
    Force,
    KeyFile,
    LearningRate,
    LocalEpochs,
    Output,
    PrecisionOption,
    RecipeOption,
    RosterFile,
    Seed,
    TotalEpochs,
    WarmupEpochs,
    read_recipe,
    schedule_of,
)
from ucadi.errors import MismatchError
from ucadi.fed.fixedpoint import layout_of
from ucadi.fed.norms import without_norms
from ucadi.fed.plan import Plan
from ucadi.formats import keys as key_format
from ucadi.formats import plan as plan_format
from ucadi.formats import roster as roster_format
from ucadi.formats import weights as weights_format
from ucadi.rounds.round import Round
from ucadi.rounds.training import recipe_of


@dataclass(frozen=True)
class RoundResult:
    """The plan made."""

    plan: Path
    round: int
    sites: tuple[str, ...]
    quorum: int
    base: str
    value_bits: int

    def __str__(self) -> str:
        return (
            f"{self.plan}: round {self.round} from base {self.base[:8]}…, quorum {self.quorum} of "
            f"{', '.join(self.sites)}; values of {self.value_bits} bits"
        )


def round_open(
    *,
    number: Annotated[int, typer.Option(help="Number of the round, from 1.", min=1)],
    base: Annotated[Path, typer.Option(help="The global weights that the round begins with.")],
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    quorum: Annotated[int | None, typer.Option(help="Fewest contributions (default: all sites).")] = None,
    weight_cap: Annotated[int, typer.Option(help="Largest examples x local epochs of a site.")] = 65536,
    headroom: Annotated[int, typer.Option(help="Ranges are 2^HEADROOM times the base's.", min=0, max=16)] = 4,
    local_epochs: LocalEpochs = None,
    total_epochs: TotalEpochs = None,
    warmup_epochs: WarmupEpochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    drop_rate: DropRate = None,
    seed: Seed = None,
    precision: PrecisionOption = None,
    recipe: RecipeOption = None,
    force: Force = False,
) -> RoundResult:
    """Open a round: a signed plan that fixes base, sites, ranges and hyper-parameters for everyone."""
    members = roster_format.read(roster)
    keys = key_format.read_key(key)
    if keys.public != members.coordinator:
        raise MismatchError(
            f"{keys.name} is not the coordinator of {members.federation}", hint="use the coordinator's key"
        )
    weights = weights_format.read(base)
    chosen = read_recipe(recipe)
    plan = Plan(
        federation=members.federation,
        round=number,
        base=weights.digest,
        roster=members.digest,
        mode=members.policy.mode,
        sites=members.names,
        quorum=len(members.names) if quorum is None else quorum,
        weight_cap=weight_cap,
        layout=layout_of(without_norms(weights.arrays) if chosen.local_norms else weights.arrays, headroom),
        server=chosen.server,
        schedule=schedule_of(
            chosen,
            local_epochs=local_epochs,
            total_epochs=total_epochs,
            warmup_epochs=warmup_epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            drop_rate=drop_rate,
            seed=seed,
            precision=precision,
        ),
    )
    recipe_of(plan.schedule)  # what no site could train with is refused here
    bits = Round(plan, "", members).bits
    plan_format.write(output, plan, keys, force=force)
    return RoundResult(output, number, plan.sites, plan.quorum, plan.base, bits)
