"""ucadi aggregate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output, PlanFile, RosterFile
from ucadi.errors import FormatError, UsageError
from ucadi.fed.averaging import Aggregate, add
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.rounds.collection import check_quorum, write_sum
from ucadi.rounds.contribution import check_belongs
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class AggregateResult:
    """The sum made."""

    aggregate: Path
    sites: tuple[str, ...]
    encrypted: bool

    def __str__(self) -> str:
        return f"{self.aggregate}: {'encrypted ' if self.encrypted else ''}sum of {', '.join(self.sites)}"


def aggregate(
    updates: Annotated[list[Path], typer.Argument(help="Ciphertexts, or plain updates, of one round; in any order.")],
    *,
    plan: PlanFile,
    roster: RosterFile,
    output: Output,
    key: Annotated[Path | None, typer.Option(help="The coordinator's key, to sign a sum of ciphertexts.")] = None,
    clip: Annotated[
        bool, typer.Option(help="Plain updates: cut values to their range instead of refusing them.")
    ] = False,
    force: Force = False,
) -> AggregateResult:
    """Add the sites' updates, weighted by examples x local epochs.

    Ciphertexts are added as they are: no key opens them here. Plain updates are added in the same
    integers, so both ways give the same sum to the last bit, in any order.
    """
    this = Round.read(plan, roster)
    formats = {container.read(path).metadata.get("format") for path in updates}
    if formats == {ciphertext_format.CIPHERTEXT_FORMAT}:
        if key is None:
            raise UsageError("a sum of ciphertexts is signed", hint="--key: the coordinator's key file")
        sites = write_sum(output, updates, this, key_format.read_key(key), force=force)
        return AggregateResult(output, sites, encrypted=True)
    if formats != {update_format.UPDATE_FORMAT}:
        raise FormatError(
            "either ciphertexts or updates are added, nothing else and not both", hint="ucadi inspect FILE"
        )
    plain = [update_format.read_update(path) for path in updates]
    for update in plain:
        check_belongs(update, this)
    sites = tuple(sorted(update.site for update in plain))
    check_quorum(sites, this)
    total = add(plain, this.plan.layout, cap=this.plan.weight_cap, bits=this.bits, clip=clip)
    update_format.write_aggregate(output, Aggregate(this.plan.base, this.plan_digest, sites, total), force=force)
    return AggregateResult(output, sites, encrypted=False)
