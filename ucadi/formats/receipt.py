"""The receipt of a round: who was in, who was refused and why, who was missing; signed, and chained to the one before.

A receipt is the last word on its round: what arrives later changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ucadi.errors import FormatError, MismatchError
from ucadi.formats.container import GET_AGAIN, Metadata, file_digest
from ucadi.formats.roster import Roster
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import SecretKeys
from ucadi.kinds import Format

FORMAT = Format.RECEIPT.id

MARK_VERSION = 1
"""Stands in a mark in place of a format, so that nothing else that is signed can pass for one."""

_MARK = {"mark", "federation", "round", "plan", "aggregate", "previous", "signature"}

Status = Literal["closed", "void"]


@dataclass(frozen=True)
class Receipt:
    """How a round ended. `closed`: it has a `sum`; `void`: too few contributed, and there is none.

    `contributions` gives the SHA-256 of each accepted upload by its site, `refused` the reason by the name of
    the file, `missing` the sites that no accepted upload is of. `plan`, `base`, `sum` and `previous` (the
    receipt of the round before, None for the first) are digests of files.
    """

    federation: str
    round: int
    plan: str
    base: str
    status: Status
    contributions: Mapping[str, str]
    refused: Mapping[str, str]
    missing: tuple[str, ...]
    sum: str | None
    previous: str | None
    mark: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """A receipt in short, signed by itself: two of one round that differ are two histories. `document` is all of it."""

    federation: str
    round: int
    plan: str
    sum: str | None
    previous: str | None
    document: Metadata


def write(path: Path, receipt: Receipt, keys: SecretKeys) -> None:
    """Writes the receipt and its mark, signed by the coordinator's `keys`; one that exists is never replaced."""
    mark = {
        "mark": MARK_VERSION,
        "federation": receipt.federation,
        "round": receipt.round,
        "plan": receipt.plan,
        "aggregate": receipt.sum,
        "previous": receipt.previous,
    }
    document = {
        **Format.RECEIPT.head,
        "federation": receipt.federation,
        "round": receipt.round,
        "plan": receipt.plan,
        "base": receipt.base,
        "status": receipt.status,
        "contributions": dict(receipt.contributions),
        "refused": dict(receipt.refused),
        "missing": list(receipt.missing),
        "aggregate": receipt.sum,
        "previous": receipt.previous,
        "mark": sign(mark, keys),
    }
    write_document(path, sign(document, keys))


def read(path: Path, roster: Roster) -> tuple[Receipt, str]:
    """Reads a receipt and its digest; checks that the roster's coordinator signed it."""
    document = read_document(path, FORMAT)
    verify(document, roster.coordinator, path.name)
    fields = Fields(document, path.name)
    contributions, refused = fields.object("contributions"), fields.object("refused")
    status = _status(fields, path.name)
    receipt = Receipt(
        federation=fields.text("federation"),
        round=fields.number("round", least=1),
        plan=fields.digest("plan"),
        base=fields.digest("base"),
        status=status,
        contributions={site: contributions.digest(site) for site in contributions.values},
        refused={name: refused.text(name) for name in refused.values},
        missing=tuple(fields.texts("missing")),
        sum=fields.digest_or_none("aggregate"),
        previous=fields.digest_or_none("previous"),
        mark=fields.object("mark").values,
    )
    mark = parse_mark(fields.object("mark"))
    check_mark(mark, roster, path.name)
    short = (receipt.federation, receipt.round, receipt.plan, receipt.sum, receipt.previous)
    if (mark.federation, mark.round, mark.plan, mark.sum, mark.previous) != short:
        raise FormatError(f"{path.name}: its mark is of another receipt", hint=GET_AGAIN)
    if (receipt.status == "void") != (receipt.sum is None):
        raise FormatError(f"{path.name}: a closed round has a sum and a void one none", hint=GET_AGAIN)
    if not all(name.isprintable() for name in (*receipt.contributions, *receipt.refused)):
        raise FormatError(f"{path.name}: a name is not printable", hint=GET_AGAIN)
    if receipt.federation != roster.federation:
        raise MismatchError(
            f"{path.name}: of {receipt.federation}, the roster is that of {roster.federation}",
            hint="use the roster of the federation that the round belongs to",
        )
    return receipt, file_digest(path)


def parse_mark(fields: Fields) -> Mark:
    """A mark, from a receipt or a statement; whose signature it bears is not looked at here."""
    if set(fields.values) != _MARK or fields.number("mark") != MARK_VERSION:
        raise FormatError("a mark that says more, or less, than one does", hint=GET_AGAIN)
    return Mark(
        fields.text("federation"),
        fields.number("round", least=1),
        fields.digest("plan"),
        fields.digest_or_none("aggregate"),
        fields.digest_or_none("previous"),
        fields.values,
    )


def check_mark(mark: Mark, roster: Roster, name: str) -> None:
    """Raises MismatchError unless the coordinator of this very federation signed the mark."""
    verify(mark.document, roster.coordinator, name)
    if mark.federation != roster.federation:
        raise MismatchError(f"{name}: a mark of {mark.federation}", hint="it is of another federation")


def _status(fields: Fields, name: str) -> Status:
    match fields.text("status"):
        case "closed":
            return "closed"
        case "void":
            return "void"
        case other:
            raise FormatError(f"{name}: unknown status {other!r}", hint=GET_AGAIN)
