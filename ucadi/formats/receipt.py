"""The receipt of a round: who was in, who was refused and why, who was missing; signed, and chained to the one before.

A receipt is the last word on its round: what arrives later changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ucadi.errors import FormatError, MismatchError
from ucadi.formats.container import GET_AGAIN, file_digest
from ucadi.formats.roster import Roster
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import SecretKeys
from ucadi.kinds import Format

FORMAT = Format.RECEIPT.id

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


def write(path: Path, receipt: Receipt, keys: SecretKeys) -> None:
    """Writes the receipt, signed by the coordinator's `keys`; one that exists is never replaced."""
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
    )
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


def _status(fields: Fields, name: str) -> Status:
    match fields.text("status"):
        case "closed":
            return "closed"
        case "void":
            return "void"
        case other:
            raise FormatError(f"{name}: unknown status {other!r}", hint=GET_AGAIN)
