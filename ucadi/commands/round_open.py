"""ucadi round open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import (
    HEADROOM,
    Force,
    Headroom,
    KeyFile,
    RecipeFile,
    Settings,
    refuse_unused,
)
from ucadi.errors import MismatchError, UsageError
from ucadi.fed.fixedpoint import layout_of, smallest_step
from ucadi.fed.norms import without_norms
from ucadi.fed.plan import Plan
from ucadi.fed.sizing import fitting_cap
from ucadi.files import write_file
from ucadi.formats import keys as key_format
from ucadi.formats import plan as plan_format
from ucadi.formats import roster as roster_format
from ucadi.formats import weights as weights_format
from ucadi.formats.exchange import Exchange
from ucadi.formats.roster import Roster
from ucadi.formats.schedules import read_recipe
from ucadi.kinds import Kind
from ucadi.rounds.closing import read_roster
from ucadi.rounds.consents import consents_beside, read_consents
from ucadi.rounds.round import COUNTING_CAP, Round, counting_layout

CAP = 65536
"""The weight cap where none is given: examples x local epochs. It fits sites of thousands of examples; see
`ucadi.fed.sizing` for one that fits the sites at hand."""


@dataclass(frozen=True)
class RoundResult:
    """The plan made."""

    plan: Path
    round: int
    sites: tuple[str, ...]
    quorum: int
    base: str
    value_bits: int
    weight_cap: int
    steps: dict[int, float]
    """The smallest change that survives encoding, as a share of its tensor's range, by a site's weight."""

    def __str__(self) -> str:
        text = (
            f"{self.plan}: round {self.round} from base {self.base[:8]}…, quorum {self.quorum} of "
            f"{', '.join(self.sites)}; values of {self.value_bits} bits"
        )
        steps = ", ".join(f"{step:.1g} at weight {weight}" for weight, step in self.steps.items())
        cap = f"weight cap {self.weight_cap} examples x local epochs; smallest step of a range: {steps}"
        return f"{text}\n{cap}" if steps else text


def round_open(
    *,
    number: Annotated[int, typer.Option(help="Number of the round, from 1.", min=1, max=9999)],
    key: KeyFile,
    base: Annotated[Path | None, typer.Option(help="The global weights that the round begins with.")] = None,
    count_scores_of: Annotated[
        str | None,
        typer.Option(help="SHA-256 of a model: the sites add up histograms of its scores, and nobody trains."),
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="The federation's signed roster.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    exchange: Annotated[
        Path | None, typer.Option(help="Open it in this exchange directory, by its newest roster, with its base.")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="A site that takes part; once for each [default: all].")
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(help="Fewest contributions [default: all sites].", min=1, max=10_000)
    ] = None,
    weight_cap: Annotated[
        int | None,
        typer.Option(
            help=f"Largest examples x local epochs of a site [default: by the sites' size bands, else {CAP}].",
            min=1,
            max=1 << 31,
        ),
    ] = None,
    headroom: Headroom = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    force: Force = False,
) -> RoundResult:
    r"""Open a round: a signed plan that fixes base, sites, ranges and hyper-parameters for everyone.

    Either --exchange says where everything lies, or --roster and --output do. With --count-scores-of in place of
    --base, it is a counting round, for the pooled ROC of a model: see histogram.

    Example:
        ucadi round open --number 1 --base base.weights --roster federation.json \
            --key coordinator.key --set total_epochs=50 -o plan.json
    """
    if (base is None) == (count_scores_of is None):
        raise UsageError("a round begins with a model", hint="--base FILE, or --count-scores-of SHA256")
    if exchange is not None:
        if roster is not None or output is not None:
            raise UsageError(
                "--exchange: places in an exchange directory are fixed", hint="leave out --roster and --output"
            )
        folder = Exchange(exchange)
        roster = folder.newest_roster()
        read_roster(folder, roster)
        output = folder.make_place(Kind.PLAN, number)
    if roster is None or output is None:
        raise UsageError("where to?", hint="--exchange DIR, or --roster FILE and --output FILE")
    members = roster_format.read(roster)
    keys = key_format.read_key(key)
    members.check_led_by(keys, key.name)
    sites = members.names if site is None else tuple(sorted(members.member(name).name for name in set(site)))
    chosen = read_recipe(recipe, settings or ())
    cap = _cap(members, sites, roster, chosen.schedule.local_epochs) if weight_cap is None else weight_cap
    if base is None:
        training = {"--weight-cap": weight_cap, "--headroom": headroom, "--recipe": recipe, "--set": settings}
        refuse_unused(training, "nobody trains in a counting round")
        digest, layout, cap = _digest(count_scores_of or ""), counting_layout(len(sites)), COUNTING_CAP
    else:
        weights = weights_format.read(base)
        digest = weights.digest
        shared = without_norms(weights.arrays) if chosen.local_norms else weights.arrays
        layout = layout_of(shared, HEADROOM if headroom is None else headroom)
    plan = Plan(
        federation=members.federation,
        round=number,
        base=digest,
        roster=members.digest,
        mode=members.policy.mode,
        sites=sites,
        quorum=len(sites) if quorum is None else quorum,
        weight_cap=cap,
        layout=layout,
        server=chosen.server,
        schedule=chosen.schedule,
    )
    bits = Round(plan, "", members).bits
    if exchange is not None and base is not None:
        _publish(base, Exchange(exchange), number, digest)
    plan_format.write(output, plan, keys, force=force)
    weights_of_bands = [] if base is None else sorted({cap, max(1, cap // 32), max(1, cap // 1024)}, reverse=True)
    steps = {weight: smallest_step(weight, cap=cap, bits=bits) for weight in weights_of_bands}
    return RoundResult(output, number, plan.sites, plan.quorum, plan.base, bits, cap, steps)


def _cap(members: Roster, sites: tuple[str, ...], roster: Path, local_epochs: int) -> int:
    """The weight cap that fits the size bands which all sites state in their consents; else the common one."""
    consents = read_consents(members, consents_beside(roster))
    bands = [consents[name].size_band if name in consents else None for name in sites]
    return fitting_cap(bands, local_epochs) or CAP


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise UsageError(f"{text!r} is no SHA-256", hint="what apply and site run print, or sha256sum MODEL")
    return text


def _publish(base: Path, exchange: Exchange, number: int, digest: str) -> None:
    """Puts the base into its place, for sites that do not have it."""
    place = exchange.make_place(Kind.MODEL, number)
    if exchange.has(Kind.MODEL, number):
        if weights_format.read(place).digest != digest:
            raise MismatchError(f"{place}: other weights than {base}", hint="what is in an exchange directory stays")
        return
    write_file(place, base.read_bytes())
