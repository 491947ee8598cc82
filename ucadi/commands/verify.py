"""ucadi verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ucadi.commands import ReceiptFile, TagFiles, refuse_unused
from ucadi.errors import MismatchError, UsageError
from ucadi.fed.averaging import Aggregate
from ucadi.fed.update import Update
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container
from ucadi.formats import partial as partial_format
from ucadi.formats import update as update_format
from ucadi.formats.ciphertext import Ciphertext, CiphertextSum
from ucadi.formats.container import Container
from ucadi.formats.exchange import Exchange
from ucadi.formats.partial import Partial
from ucadi.rounds.collection import check_contribution
from ucadi.rounds.contribution import check_belongs
from ucadi.rounds.opening import check_sum
from ucadi.rounds.round import Round
from ucadi.rounds.soundness import check_aggregate
from ucadi.rounds.standing import Standing, check_round_sum, standing
from ucadi.rounds.tagging import Tags, false_tag, how_checked, read_given
from ucadi.rounds.threshold import check_partial
from ucadi.rounds.verdict import Verdict, weakest


@dataclass(frozen=True)
class VerifyResult:
    """What was found to be true of each file of a round, or where each round of an exchange directory stands."""

    round: int | None
    found: dict[str, str]
    verdicts: dict[str, Verdict]
    """Of each file, or of the sum of each round of a directory by the round's number."""
    verdict: Verdict
    """The weakest of these."""
    rounds: tuple[Standing, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if all was verified, 10 if not."""
        return self.verdict.exit_code

    def __str__(self) -> str:
        if self.round is None:
            lines = [f"{one}\n  sum:         {self.verdicts[str(one.round)]}" for one in self.rounds]
        else:
            width = max(map(len, self.found), default=0)
            lines = [f"round {self.round}: plan and roster are signed by the coordinator"]
            lines += [f"  {name:<{width}}  {self.verdicts[name]}: {what}" for name, what in self.found.items()]
        return "\n".join([*lines, f"verdict: {self.verdict}"])


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Ciphertexts, sums, partial decryptions, updates, aggregates of a round; or an exchange directory."
        ),
    ],
    *,
    plan: Annotated[Path | None, typer.Option(help="The round's signed plan, with files.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The federation's signed roster, with files.")] = None,
    receipt: ReceiptFile = None,
    tag: TagFiles = None,
) -> VerifyResult:
    r"""Check that files are of this round and signed by whom they say; add uploads again and compare the sum.

    Needs no key. A member checks the coordinator's sum by --receipt and every site's --tag, without any upload; who is
    no member, by the round's uploads. With both, it is said whose tag is not that of its upload. Of an exchange
    directory, says for each round who is in, missing, late or refused and why; see audit for how rounds follow.
    The verdict is `verified`, `signature-only` or `not-recomputed`: a sum is verified if all its uploads or tags are
    given, an upload or a partial decryption by its signature; plain updates and opened sums bear none. The exit code is
    0 only if all is verified; 10 says that nothing is wrong, and that not all could be verified; anything wrong is an
    error.

    Example:
        ucadi verify sum.enc --receipt receipt.json --tag tags \
            --plan plan.json --roster federation.json
    """
    if len(files) == 1 and files[0].is_dir():
        refuse_unused({"--receipt": receipt, "--tag": tuple(tag or ())}, "the directory has its own")
        return _directory(Exchange(files[0]))
    if plan is None or roster is None:
        raise UsageError("files are verified under their round's plan", hint="--plan and --roster")
    round_ = Round.read(plan, roster)
    read = {path: _read(path) for path in files}
    uploads = {path: held for path, held in read.items() if isinstance(held, Ciphertext)}
    tags = read_given(round_, receipt, tag or ())
    if tags is not None:
        _check_tags(tags, uploads)
    found: dict[str, str] = {}
    verdicts: dict[str, Verdict] = {}
    for path, held in read.items():
        verdicts[path.name] = Verdict.VERIFIED
        match held:
            case Ciphertext():
                check_contribution(held.contribution, round_, path.name)
                found[path.name] = f"encrypted and signed by {held.contribution.site}"
            case CiphertextSum():
                check_sum(held, round_, path.name)
                how = how_checked(held, path, list(uploads.values()), tags)
                verdicts[path.name] = Verdict.VERIFIED if how else Verdict.SIGNATURE_ONLY
                found[path.name] = f"sum of {', '.join(held.sites)}, signed by {round_.roster.coordinator.name}; " + (
                    how or "not checked, as not all its uploads or tags were given"
                )
            case Partial():
                check_partial(held, round_, path.name)
                found[path.name] = f"partial decryption signed by {held.member}"
            case Update():
                check_belongs(held, round_)
                verdicts[path.name] = Verdict.NOT_RECOMPUTED
                found[path.name] = f"update of {held.site}, from this round's base; updates bear no signature"
            case Aggregate():
                check_aggregate(held, round_, path.name)
                verdicts[path.name] = Verdict.NOT_RECOMPUTED
                found[path.name] = f"sum of {', '.join(held.sites)}; aggregates bear no signature"
    return VerifyResult(round_.plan.round, found, verdicts, weakest(verdicts.values()))


def _directory(folder: Exchange) -> VerifyResult:
    """Where each round stands, and whether its sum is that of its uploads."""
    rounds = tuple(standing(folder, number) for number in folder.opened_rounds())
    verdicts = {str(one.round): check_round_sum(folder, one.round) for one in rounds}
    return VerifyResult(None, {}, verdicts, weakest(verdicts.values()), rounds)


def _check_tags(tags: Tags, uploads: Mapping[Path, Ciphertext]) -> None:
    """Raises MismatchError for a tag that does not count, or is not that of its site's upload."""
    for why in tags.refused.values():
        raise MismatchError(why, hint="leave it out, and ask its site for another")
    if false := tags.false(uploads):
        raise MismatchError(f"{false_tag(false[0])}", hint=f"ask {false[0]}; no sum can be checked by it")


Verifiable: TypeAlias = Ciphertext | CiphertextSum | Partial | Update | Aggregate

_PARSERS: dict[str, Callable[[Container, str], Verifiable]] = {
    ciphertext_format.CIPHERTEXT_FORMAT: ciphertext_format.parse_ciphertext,
    ciphertext_format.SUM_FORMAT: ciphertext_format.parse_sum,
    partial_format.FORMAT: partial_format.parse,
    update_format.UPDATE_FORMAT: update_format.parse_update,
    update_format.AGGREGATE_FORMAT: update_format.parse_aggregate,
}


def _read(path: Path) -> Verifiable:
    held = container.read(path, *_PARSERS)
    return _PARSERS[held.metadata["format"]](held, path.name)
