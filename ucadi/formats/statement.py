"""Statements: what a site says of a round once it is over, signed: the model it leads to, times, and evaluation.

A coordinator that cannot open a sum learns from them how the next round begins: the digest of its base, and
the magnitude of each tensor to a power of two, from which the ranges of the next round follow. Times are for
people, and never enter what is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ucadi.errors import FormatError, MismatchError, SignatureError
from ucadi.formats.container import GET_AGAIN
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import Format

FORMAT = Format.STATEMENT.id

_MOST = 32
"""Times, and figures of an evaluation, that one statement may hold."""


@dataclass(frozen=True)
class Statement:
    """One party's word on the round of `plan` (its digest).

    `model` is the digest of the weights that the round leads to and `exponents` the magnitudes of its tensors in the
    order of the plan's layout (see `fixedpoint.magnitude_exponents`); both empty where the party does not know them.
    `seconds` are durations by what was done, `metrics` what the site publishes of its evaluation.
    """

    site: str
    plan: str
    model: str | None = None
    exponents: tuple[int, ...] = ()
    seconds: Mapping[str, float] | None = None
    metrics: Mapping[str, float] | None = None
    opened: str | None = None
    """Digest of the opened sum, where the party publishes it."""
    next_sealing: bytes | None = None
    """The party's public sealing key for the next round, 1,216 bytes, in place of the roster's."""


def write(path: Path, statement: Statement, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes a statement, signed by `keys`, which must be its site's."""
    if keys.name != statement.site:
        raise MismatchError(f"a statement of {statement.site}: the key is that of {keys.name}")
    document = {
        **Format.STATEMENT.head,
        "site": statement.site,
        "plan": statement.plan,
        "model": statement.model,
        "exponents": list(statement.exponents),
        "seconds": dict(statement.seconds or {}),
        "metrics": dict(statement.metrics or {}),
    }
    if statement.opened is not None:
        document["opened"] = statement.opened
    if statement.next_sealing is not None:
        document["next_sealing"] = statement.next_sealing.hex()
    write_document(path, sign(document, keys), force=force)


def read(path: Path, keys: PublicKeys) -> Statement:
    """Reads a statement and checks that `keys` signed it, whose name it must bear."""
    document = read_document(path, FORMAT)
    verify(document, keys, path.name)
    fields = Fields(document, path.name)
    if fields.text("site") != keys.name:
        raise MismatchError(f"{path.name}: a statement of {fields.text('site')}, signed by {keys.name}")
    exponents = document.get("exponents")
    if not isinstance(exponents, list) or not all(type(e) is int and -64 <= e <= 64 for e in exponents):
        raise FormatError(f"{path.name}: exponents that are none", hint=GET_AGAIN)
    known = document.get("model") is not None
    return Statement(
        keys.name,
        fields.digest("plan"),
        fields.digest("model") if known else None,
        tuple(exponents),
        _figures(fields.object("seconds"), path.name),
        _figures(fields.object("metrics"), path.name),
        fields.digest("opened") if "opened" in document else None,
        _sealing(fields, keys, path.name) if "next_sealing" in document else None,
    )


def _sealing(fields: Fields, keys: PublicKeys, name: str) -> bytes:
    """A sealing key to which something can be sealed: others will, and must not fail for it."""
    sealing = fields.octets("next_sealing")
    try:
        replace(keys, sealing=sealing).seal(b"", b"")
    except (SignatureError, ValueError):
        raise FormatError(f"{name}: nothing can be sealed to its next_sealing", hint=GET_AGAIN) from None
    return sealing


def _figures(fields: Fields, name: str) -> dict[str, float]:
    if len(fields.values) > _MOST or not all(key.isprintable() and len(key) <= 64 for key in fields.values):
        raise FormatError(f"{name}: more figures, or other names of them, than a statement may hold", hint=GET_AGAIN)
    return {key: fields.real(key) for key in fields.values}
