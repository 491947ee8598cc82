"""ucadi encrypt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, KeyFile, MaxRounding, Output, PlanFile, RosterFile, SealingFolder
from ucadi.errors import MismatchError
from ucadi.files import refuse_existing
from ucadi.formats import container
from ucadi.formats import histogram as histogram_format
from ucadi.formats import keys as key_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats import update as update_format
from ucadi.progress import note
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.contribution import check_contributes, check_fits, write_contribution
from ucadi.rounds.counting import as_update
from ucadi.rounds.round import Round
from ucadi.rounds.sealing import members_here

MUCH_ROUNDING = 0.05
"""Share of an update that rounding may lose before that is told."""


@dataclass(frozen=True)
class EncryptResult:
    """The ciphertext made, and how its size compares with the update's float32 values."""

    ciphertext: Path
    site: str
    bytes: int
    expansion: float
    clipped: int
    rounding: float = 0.0
    """The relative error of the encoded update, by rounding alone."""

    def __str__(self) -> str:
        text = f"{self.ciphertext}: {self.bytes / 1e6:.3f} MB, {self.expansion:.3f} x the plain update"
        text += f"; rounding loses {self.rounding:.2g} of it" if self.rounding else ""
        return text + (f"; {self.clipped} values clipped to their range" if self.clipped else "")


def encrypt(
    update: Annotated[
        Path, typer.Argument(help="The site's update, from train; or its histogram, if the round counts.")
    ],
    *,
    plan: PlanFile,
    roster: RosterFile,
    key: KeyFile,
    output: Output,
    receipt: Annotated[
        list[Path] | None,
        typer.Option(help="The receipt of a void round, from whose base the site trained anew; once for each."),
    ] = None,
    clip: Annotated[bool, typer.Option(help="Cut values to their range instead of refusing them.")] = False,
    max_rounding: MaxRounding = None,
    exchange: SealingFolder = None,
    force: Force = False,
) -> EncryptResult:
    r"""Encrypt a site's update so that it can be summed with others and only the sum decrypted.

    One update, one round: the ledger beside the key refuses to encrypt it for a second, or another one for the same.
    Each run draws a new secret and gives another ciphertext. Upload one only. Says how much of the update rounding
    loses: much, where the plan's weight cap is far above the site's weight.

    Example:
        ucadi encrypt site-a.update --plan plan.json --roster federation.json \
            --key site-a.key -o site-a.enc
    """
    round_ = Round.read(plan, roster)
    keys = key_format.read_key(key)
    members = None if exchange is None else members_here(exchange, round_)
    held = container.read(update, update_format.UPDATE_FORMAT, histogram_format.FORMAT)
    counts = held.metadata["format"] == histogram_format.FORMAT
    if counts:
        contributed = as_update(histogram_format.read(update), keys.name, round_)
    else:
        contributed = update_format.parse_update(held, update.name)
    check_contributes(contributed, round_, keys)
    refuse_existing(output, force=force)
    agreement = Agreement(key, keys)
    agreement.check_round(round_, roster)
    check_fits(contributed, round_, clip=clip, max_rounding=max_rounding)
    for path in receipt or ():
        agreement.enter_void(_void(path, round_))
    (agreement.enter_counts if counts else agreement.enter_update)(contributed, round_)
    encoded = write_contribution(
        output, contributed, round_, keys, members=members, clip=clip, max_rounding=max_rounding, force=force
    )
    if encoded.rounding > MUCH_ROUNDING:
        note(
            f"rounding loses {encoded.rounding:.2g} of this update: its weight is {contributed.weight}, the plan's "
            f"weight cap {round_.plan.weight_cap}; ask the coordinator for a round with a smaller --weight-cap"
        )
    size = output.stat().st_size
    return EncryptResult(
        output, keys.name, size, size / (4 * round_.plan.layout.size), encoded.clipped, encoded.rounding
    )


def _void(path: Path, round_: Round) -> str:
    """The plan, by digest, of a round that the coordinator has signed to be void."""
    receipt, _ = receipt_format.read(path, round_.roster)
    if receipt.status != "void":
        raise MismatchError(f"{path.name}: round {receipt.round} is {receipt.status}, not void", hint="leave it out")
    return receipt.plan
