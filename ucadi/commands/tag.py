"""ucadi tag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, KeyFile, Output, PlanFile, RosterFile
from ucadi.formats import keys as key_format
from ucadi.rounds.round import Round
from ucadi.rounds.tagging import write_tag


@dataclass(frozen=True)
class TagResult:
    """The tag made."""

    tag: Path
    site: str
    round: int

    def __str__(self) -> str:
        return f"{self.tag}: tag of the upload of {self.site} in round {self.round}"


def tag(
    upload: Annotated[Path, typer.Argument(help="The site's own upload, as it was sent.")],
    *,
    plan: PlanFile,
    roster: RosterFile,
    receipt: Annotated[Path, typer.Option(help="The round's receipt.")],
    key: KeyFile,
    output: Output,
    force: Force = False,
) -> TagResult:
    r"""Tag one's own upload once the round is closed, so that members can check the sum.

    The tags of all uploads add up to that of their sum, and of no other. A receipt that lists another file than this
    one is refused. Tag once: a second receipt for a round is a coordinator's lie.

    Example:
        ucadi tag site-a.enc --plan plan.json --roster federation.json \
            --receipt receipt.json --key site-a.key -o tags/site-a.json
    """
    round_ = Round.read(plan, roster)
    keys = key_format.read_key(key)
    write_tag(output, upload, receipt, round_, keys, force=force)
    return TagResult(output, keys.name, round_.plan.round)
