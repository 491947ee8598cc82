"""ucadi encrypt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, KeyFile, Output, PlanFile, RosterFile, SealingFolder
from ucadi.formats import container
from ucadi.formats import histogram as histogram_format
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.rounds.contribution import write_contribution
from ucadi.rounds.counting import as_update
from ucadi.rounds.round import Round
from ucadi.rounds.sealing import members_here


@dataclass(frozen=True)
class EncryptResult:
    """The ciphertext made, and how its size compares with the update's float32 values."""

    ciphertext: Path
    site: str
    bytes: int
    expansion: float
    clipped: int

    def __str__(self) -> str:
        text = f"{self.ciphertext}: {self.bytes / 1e6:.3f} MB, {self.expansion:.3f} x the plain update"
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
    clip: Annotated[bool, typer.Option(help="Cut values to their range instead of refusing them.")] = False,
    exchange: SealingFolder = None,
    force: Force = False,
) -> EncryptResult:
    r"""Encrypt a site's update so that it can be summed with others and only the sum decrypted.

    Each run draws a new secret and gives another ciphertext. Upload one only.

    Example:
        ucadi encrypt site-a.update --plan plan.json --roster federation.json \
            --key site-a.key -o site-a.enc
    """
    round_ = Round.read(plan, roster)
    keys = key_format.read_key(key)
    members = None if exchange is None else members_here(exchange, round_)
    held = container.read(update, update_format.UPDATE_FORMAT, histogram_format.FORMAT)
    if held.metadata["format"] == histogram_format.FORMAT:
        contributed = as_update(histogram_format.read(update), keys.name, round_)
    else:
        contributed = update_format.parse_update(held, update.name)
    clipped = write_contribution(output, contributed, round_, keys, members=members, clip=clip, force=force)
    size = output.stat().st_size
    return EncryptResult(output, keys.name, size, size / (4 * round_.plan.layout.size), clipped)
