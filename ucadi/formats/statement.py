"""Statements: what a site says of a round once it is over, signed: the model it leads to, times, and evaluation.

A coordinator that cannot open a sum learns from them how the next round begins: the digest of its base, and
the magnitude of each tensor to a power of two, from which the ranges of the next round follow; or that it begins where
this one did, as the sum is of no use or its model worse. Times are for people, and never enter what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from ucadi.errors import FormatError, MismatchError, SignatureError, Unsound
from ucadi.formats.container import GET_AGAIN, Metadata
from ucadi.formats.receipt import Mark, parse_mark
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import SITE, Format

FORMAT = Format.STATEMENT.id

_MOST = 32
"""Times, and figures of an evaluation, that one statement may hold."""

_MOST_NAMES = 10_000


class Vote(StrEnum):
    """What a site says of a new model after comparing it with the base on its own test cases."""

    WORSE = "worse"
    NOT_WORSE = "not worse"


_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True)
class Statement:
    """One party's word on the round of `plan` (its digest).

    `model` is the digest of the weights that the round leads to and `exponents` the magnitudes of its tensors in the
    order of the plan's layout (see `fixedpoint.magnitude_exponents`); both empty where the party does not know them.
    `seconds` are durations by what was done, `metrics` what the site publishes of its evaluation, `ledger` the head of
    its ledger, `mark` that of the round's receipt, `lot` its link for the next round's lot. `unchecked` are the sites
    whose tags it had not when it opened the sum: if there are any, it did not check it.
    """

    site: str
    plan: str
    model: str | None = None
    exponents: tuple[int, ...] = ()
    seconds: Mapping[str, float] | None = None
    metrics: Mapping[str, float] | None = None
    ledger: str | None = None
    mark: Metadata | None = None
    lot: str | None = None
    unchecked: tuple[str, ...] = ()
    void: Unsound | None = None
    """Why the party finds the round's sum of no use; there is no model then."""
    false_shares: tuple[str, ...] = ()
    """The members whose shares it found to be wrong."""
    vote: Vote | None = None
    """Whether it finds the model worse than its base on its own cases; None where it cannot say."""
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
        "ledger": statement.ledger,
        "mark": statement.mark,
        "lot": statement.lot,
        "unchecked": list(statement.unchecked),
        "void": statement.void,
        "false_shares": list(statement.false_shares),
        "vote": statement.vote,
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
    if known and document.get("void") is not None:
        raise FormatError(f"{path.name}: a model of a round that it calls void", hint=GET_AGAIN)
    return Statement(
        keys.name,
        fields.digest("plan"),
        fields.digest("model") if known else None,
        tuple(exponents),
        _figures(fields.object("seconds"), path.name),
        _figures(fields.object("metrics"), path.name),
        ledger=fields.digest_or_none("ledger"),
        mark=fields.object("mark").values if fields.values.get("mark") is not None else None,
        lot=fields.digest_or_none("lot"),
        unchecked=tuple(fields.texts("unchecked")),
        void=_word(document, "void", Unsound, path.name),
        false_shares=_names(fields.texts("false_shares"), path.name),
        vote=_word(document, "vote", Vote, path.name),
        opened=fields.digest("opened") if "opened" in document else None,
        next_sealing=_sealing(fields, keys, path.name) if "next_sealing" in document else None,
    )


def read_mark(path: Path) -> Mark | None:
    """The mark that a statement passes on, whoever signed the statement: it bears a signature of its own."""
    fields = Fields(read_document(path, FORMAT), path.name)
    return parse_mark(fields.object("mark")) if fields.values.get("mark") is not None else None


def _word(document: Metadata, key: str, words: type[_Word], name: str) -> _Word | None:
    """One of the words of an enumeration, or None, which must be said too."""
    value = document.get(key, "")
    if value is None:
        return None
    if not isinstance(value, str) or value not in set(words):
        raise FormatError(f"{name}: {key} is none of {', '.join(words)}", hint=GET_AGAIN)
    return words(value)


def _names(names: list[str], name: str) -> tuple[str, ...]:
    if len(names) > _MOST_NAMES or names != sorted(set(names)) or not all(re.fullmatch(SITE, one) for one in names):
        raise FormatError(f"{name}: false_shares are not members, each once and in order", hint=GET_AGAIN)
    return tuple(names)


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
