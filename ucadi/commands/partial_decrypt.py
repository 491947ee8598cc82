"""ucadi partial-decrypt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import (
    Force,
    KeyFile,
    Output,
    PlanFile,
    ReceiptFile,
    RosterFile,
    RoundKeyFile,
    SealingFolder,
    TagFiles,
    Unchecked,
    not_checked,
)
from ucadi.errors import UsageError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.opening import check_sum
from ucadi.rounds.round import Round
from ucadi.rounds.sealing import members_here
from ucadi.rounds.tagging import check_given
from ucadi.rounds.threshold import write_partial


@dataclass(frozen=True)
class PartialDecryptResult:
    """The partial decryption made. `unchecked`: sites without a tag; if there are any, the sum was not checked."""

    partial: Path
    member: str
    sites: tuple[str, ...]
    threshold: int
    unchecked: tuple[str, ...]

    def __str__(self) -> str:
        made = f"{self.partial}: partial decryption of {self.member} for {', '.join(self.sites)}"
        return f"{made}; {self.threshold} of them open the sum{not_checked(self.unchecked)}"


def partial_decrypt(
    ciphertext: Annotated[Path, typer.Argument(help="The round's sum of ciphertexts, from aggregate.")],
    *,
    plan: PlanFile,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    receipt: ReceiptFile = None,
    tag: TagFiles = None,
    unchecked: Unchecked = False,
    exchange: SealingFolder = None,
    round_key: RoundKeyFile = None,
    force: Force = False,
) -> PartialDecryptResult:
    r"""Help to open a round's sum as a member, in threshold mode.

    Once per round: the set of sites is entered in the ledger beside the key first, and another set is refused. With
    --receipt and every site's --tag the sum is checked first: that it is that of the uploads. The partial decryption
    states whose tags were missing.

    Example:
        ucadi partial-decrypt sum.enc --plan plan.json --roster federation.json \
            --receipt receipt.json --tag tags --key site-a.key -o site-a.partial
    """
    round_ = Round.read(plan, roster)
    if round_.plan.mode != "threshold":
        raise UsageError("this federation's sums are opened by one member's key", hint="ucadi decrypt")
    total = ciphertext_format.read_sum(ciphertext)
    check_sum(total, round_, ciphertext.name)
    missing = check_given(total, ciphertext, round_, receipt, tag or (), unchecked=unchecked)
    keys = key_format.read_key(key, round_key)
    members = None if exchange is None else members_here(exchange, round_)
    agreement = Agreement(key, keys)
    agreement.check_round(round_, roster)
    agreement.check_summed(total.sites, round_)
    write_partial(output, total, round_, keys, agreement, members=members, unchecked=missing, force=force)
    return PartialDecryptResult(output, keys.name, total.sites, round_.roster.policy.threshold, missing)
