"""ucadi decrypt."""

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
    TagFiles,
    Unchecked,
    not_checked,
)
from ucadi.errors import UsageError
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import keys as key_format
from ucadi.formats import partial as partial_format
from ucadi.progress import note
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.opening import check_sum, open_seals, write_opened
from ucadi.rounds.round import Round
from ucadi.rounds.tagging import check_given
from ucadi.rounds.threshold import Combined, combine_partials


@dataclass(frozen=True)
class DecryptResult:
    """The aggregate opened. `unchecked`: sites without a tag; if there are any, the sum was not checked."""

    aggregate: Path
    sites: tuple[str, ...]
    weight: int
    unchecked: tuple[str, ...]
    false_shares: tuple[str, ...] = ()
    """Members whose shares were wrong, by their own hand or by a site's that dealt them."""

    def __str__(self) -> str:
        made = f"{self.aggregate}: sum of {', '.join(self.sites)}, {self.weight} examples x epochs"
        made += f"; without the false shares of {', '.join(self.false_shares)}" if self.false_shares else ""
        return made + not_checked(self.unchecked)


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
    receipt: ReceiptFile = None,
    tag: TagFiles = None,
    unchecked: Unchecked = False,
    round_key: RoundKeyFile = None,
    force: Force = False,
) -> DecryptResult:
    r"""Open the sum of a round's ciphertexts with a member's key.

    In threshold mode it takes the partial decryptions of enough members as well: see partial-decrypt. Give all that
    are there: of more than enough, false ones are found, named and left out. The result is the same file, byte for
    byte, as adding the plain updates would give. With --receipt and every site's --tag the sum is checked first: that
    it is that of the uploads. A sum that no updates can have is not written.

    Example:
        ucadi decrypt sum.enc site-a.partial site-b.partial \
            --plan plan.json --roster federation.json \
            --receipt receipt.json --tag tags --key site-a.key -o opened.aggregate
    """
    round_ = Round.read(plan, roster)
    total = ciphertext_format.read_sum(ciphertext)
    check_sum(total, round_, ciphertext.name)
    missing = check_given(total, ciphertext, round_, receipt, tag or (), unchecked=unchecked)
    keys = key_format.read_key(key, round_key)
    agreement = Agreement(key, keys)
    agreement.check_round(round_, roster)
    agreement.check_summed(total.sites, round_)
    given = [*(partials or []), *(partial or [])]
    if round_.plan.mode == "members":
        if given:
            raise UsageError("this federation's sums are opened by one key", hint="leave out the partial decryptions")
        combined = Combined(open_seals(total, round_, keys), ())
    else:
        combined = combine_partials([partial_format.read(path) for path in given], total, round_, keys)
    for member in combined.false_shares:
        note(f"{member}: its share is false; opened with those of the others")
    opened = write_opened(output, total, round_, combined.secret, ciphertext.name, force=force)
    return DecryptResult(output, opened.sites, opened.weight, missing, combined.false_shares)
