"""ucadi partial-decrypt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, KeyFile, Output, PlanFile, RosterFile, RoundKeyFile, SealingFolder
from ucadi.errors import UsageError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.rounds.opening import check_sum
from ucadi.rounds.round import Round
from ucadi.rounds.sealing import members_here
from ucadi.rounds.threshold import write_partial


@dataclass(frozen=True)
class PartialDecryptResult:
    """The partial decryption made."""

    partial: Path
    member: str
    sites: tuple[str, ...]
    threshold: int

    def __str__(self) -> str:
        made = f"{self.partial}: partial decryption of {self.member} for {', '.join(self.sites)}"
        return f"{made}; {self.threshold} of them open the sum"


def partial_decrypt(
    ciphertext: Annotated[Path, typer.Argument(help="The round's sum of ciphertexts, from aggregate.")],
    *,
    plan: PlanFile,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Folder of rounds that this key helped to open [default: the key file's name with .ledger]."),
    ] = None,
    exchange: SealingFolder = None,
    round_key: RoundKeyFile = None,
    force: Force = False,
) -> PartialDecryptResult:
    r"""Help to open a round's sum as a member, in threshold mode.

    Once per round: the set of sites is entered in the ledger first, and another set of sites is refused.
    Keep the ledger as long as the key.

    Example:
        ucadi partial-decrypt sum.enc --plan plan.json --roster federation.json \
            --key site-a.key -o site-a.partial
    """
    round_ = Round.read(plan, roster)
    if round_.plan.mode != "threshold":
        raise UsageError("this federation's sums are opened by one member's key", hint="ucadi decrypt")
    total = ciphertext_format.read_sum(ciphertext)
    check_sum(total, round_, ciphertext.name)
    keys = key_format.read_key(key, round_key)
    members = None if exchange is None else members_here(exchange, round_)
    entries = key.with_suffix(".ledger") if ledger is None else ledger
    write_partial(output, total, round_, keys, entries, members=members, force=force)
    return PartialDecryptResult(output, keys.name, total.sites, round_.roster.policy.threshold)
