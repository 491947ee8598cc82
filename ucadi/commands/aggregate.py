"""ucadi aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ucadi import filetypes
from ucadi.commands import Force, Output, PlanFile, RosterFile, refuse_unused, without
from ucadi.errors import FormatError, UsageError
from ucadi.fed import robust
from ucadi.fed.averaging import Aggregate, Sum, add
from ucadi.fed.update import Update
from ucadi.files import refuse_existing
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats import update as update_format
from ucadi.rounds.admission import admit, set_aside
from ucadi.rounds.collection import check_quorum, write_sum
from ucadi.rounds.consenting import Agreement
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class AggregateResult:
    """The sum made, and why files were left out of it, by name."""

    aggregate: Path
    sites: tuple[str, ...]
    encrypted: bool
    rule: str = robust.MEAN
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        what = "sum" if self.rule == robust.MEAN else self.rule
        lines = [f"{self.aggregate}: {'encrypted ' if self.encrypted else ''}{what} of {', '.join(self.sites)}"]
        return "\n".join([*lines, *(f"  refused: {name}: {reason}" for name, reason in self.refused.items())])


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
    rule: Annotated[
        str,
        typer.Option(
            help="Plain updates: mean, or median, trimmed-mean, krum, which tolerate faulty updates.",
            autocompletion=lambda: (robust.MEAN, *robust.RULES.names()),
        ),
    ] = robust.MEAN,
    max_faulty: Annotated[
        int | None,
        typer.Option(help="Faulty updates to tolerate (trimmed-mean, krum) [default: 1].", min=1, max=10_000),
    ] = None,
    max_norm: Annotated[
        float | None,
        typer.Option(
            help="Plain updates: reject updates whose norm exceeds this multiple of the median.", min=1, max=1e6
        ),
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Plain updates: copy refused ones into this folder, and go on without them.")
    ] = None,
    force: Force = False,
) -> AggregateResult:
    r"""Add the sites' updates, weighted by examples x local epochs.

    Ciphertexts are added as they are: no key opens them here. Plain updates are added in the same
    integers, so both ways give the same sum to the last bit, in any order. Only plain updates can be judged by
    their values, or combined by another rule than the mean.

    Example:
        ucadi aggregate site-a.enc site-b.enc site-c.enc \
            --plan plan.json --roster federation.json \
            --key coordinator.key -o sum.enc
    """
    round_ = Round.read(plan, roster)
    refuse_existing(output, force=force)
    inputs = without(output, updates)
    if _are_encrypted(inputs):
        if key is None:
            raise UsageError("a sum of ciphertexts is signed", hint="--key: the coordinator's key file")
        chosen = {"--rule": rule != robust.MEAN, "--max-faulty": max_faulty, "--max-norm": max_norm}
        refuse_unused({**chosen, "--quarantine": quarantine, "--clip": clip}, "nobody can judge what is encrypted")
        keys = key_format.read_key(key)
        round_.roster.check_led_by(keys, key.name)
        sites = write_sum(output, inputs, round_, keys, Agreement(key, keys), force=force)
        return AggregateResult(output, sites, encrypted=True)
    refuse_unused({"--key": key}, "an aggregate of plain updates is not signed")
    if rule in (robust.MEAN, "median"):
        refuse_unused({"--max-faulty": max_faulty}, f"{rule} takes no number of faulty updates")
    admitted = admit(inputs, round_, max_norm, clip=clip)
    if admitted.refused:
        if quarantine is None:
            raise next(iter(admitted.refused.values()))
        set_aside(admitted.refused, quarantine)
    plain = sorted(admitted.good.values(), key=lambda update: update.site)
    sites = tuple(update.site for update in plain)
    check_quorum(sites, round_)
    total = _total(plain, round_, rule, max_faulty or 1, clip)
    update_format.write_aggregate(
        output, Aggregate(round_.plan.base, round_.plan_digest, sites, total, rule), force=force
    )
    refused = {path.name: error.message for path, error in admitted.refused.items()}
    return AggregateResult(output, sites, encrypted=False, rule=rule, refused=refused)


def _are_encrypted(paths: Sequence[Path]) -> bool:
    """Whether these are uploads, all of them; else at least one is a plain update, and admission judges the others.

    FormatError names a file that is neither, or is not of the kind of the others.
    """
    upload, update = ciphertext_format.CIPHERTEXT_FORMAT, update_format.UPDATE_FORMAT
    formats = {path: _format(path) for path in paths}
    wanted = [upload] if upload in formats.values() else [upload, update]
    if wanted == [upload, update] and update in formats.values():
        return False
    for path, found in formats.items():
        if found not in wanted:
            odd = filetypes.wrong(path, *wanted) or FormatError(f"{path.name}: truncated, or damaged")
            raise type(odd)(odd.message, hint="uploads are added, or plain updates, nothing else and not both")
    return True


def _format(path: Path) -> str | None:
    """The format that a file names; None if it is none of ucadi's."""
    try:
        return container.read(path).metadata.get("format")
    except FormatError:
        return None


def _total(plain: list[Update], round_: Round, rule: str, max_faulty: int, clip: bool) -> Sum:
    layout, cap, bits = round_.plan.layout, round_.plan.weight_cap, round_.bits
    if rule == robust.MEAN:
        return add(plain, layout, cap=cap, bits=bits, clip=clip)
    combined = robust.RULES.load(rule)(plain, max_faulty)
    return robust.encode(combined, round_.plan.base, layout, cap=cap, bits=bits, clip=clip)
