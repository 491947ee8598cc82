"""ucadi decrypt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, KeyFile, Output, PlanFile, RosterFile, RoundKeyFile
from ucadi.errors import UsageError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.rounds.opening import check_sum, open_seals, write_opened
from ucadi.rounds.round import Round
from ucadi.rounds.threshold import combine_partials


@dataclass(frozen=True)
class DecryptResult:
    """The aggregate opened."""

    aggregate: Path
    sites: tuple[str, ...]
    weight: int

    def __str__(self) -> str:
        return f"{self.aggregate}: sum of {', '.join(self.sites)}, {self.weight} examples x epochs"


def decrypt(
    ciphertext: Annotated[Path, typer.Argument(help="The round's sum of ciphertexts, from aggregate.")],
    partials: Annotated[
        list[Path] | None, typer.Argument(help="Members' partial decryptions, in threshold mode.")
    ] = None,
    *,
    plan: PlanFile,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    partial: Annotated[
        list[Path] | None, typer.Option(help="The same as an option: a member's partial decryption; once for each.")
    ] = None,
    round_key: RoundKeyFile = None,
    force: Force = False,
) -> DecryptResult:
    r"""Open the sum of a round's ciphertexts with a member's key.

    In threshold mode it takes the partial decryptions of enough members as well: see partial-decrypt. The result is the
    same file, byte for byte, as adding the plain updates would give.

    Example:
        ucadi decrypt sum.enc site-a.partial site-b.partial \
            --plan plan.json --roster federation.json \
            --key site-a.key -o opened.aggregate
    """
    round_ = Round.read(plan, roster)
    total = ciphertext_format.read_sum(ciphertext)
    check_sum(total, round_, ciphertext.name)
    keys = key_format.read_key(key, round_key)
    given = [*(partials or []), *(partial or [])]
    if round_.plan.mode == "members":
        if given:
            raise UsageError("this federation's sums are opened by one key", hint="leave out the partial decryptions")
        secret = open_seals(total, round_, keys)
    else:
        secret = combine_partials([partial_format.read(path) for path in given], total, round_, keys)
    opened = write_opened(output, total, round_, secret, force=force)
    return DecryptResult(output, opened.sites, opened.weight)
