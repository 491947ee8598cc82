"""Signed documents: canonical JSON objects with a format, a version and an Ed25519 signature.

The signature covers a domain tag and the canonical JSON of the document without its `signature`. Rosters,
plans and cards are such documents in files of their own; ciphertexts carry one in their metadata.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ucadi import filetypes
from ucadi.errors import FormatError, SignatureError
from ucadi.files import opened, write_file
from ucadi.formats.container import (
    GET_AGAIN,
    MAX_HEADER,
    Metadata,
    canonical_json,
    check_format,
    mode_of,
    parse_canonical_json,
    read,
)
from ucadi.identity import PublicKeys, SecretKeys

_DOMAIN = b"ucadi/signed/v1\n"

_LARGEST = sys.float_info.max

_MARK = b"\xef\xbb\xbf"
"""The byte order mark that some editors put before UTF-8."""


def sign(document: Metadata, keys: SecretKeys) -> Metadata:
    """The document with its signature by `keys`."""
    return {**document, "signature": keys.sign(_message(document)).hex()}


def verify(document: Metadata, keys: PublicKeys, name: str) -> None:
    """Raises SignatureError, naming `name`, unless `keys` signed exactly this document."""
    signature = document.get("signature")
    try:
        signed = isinstance(signature, str) and keys.verify(_message(document), _from_hex(signature))
    except ValueError:
        signed = False
    if not signed:
        raise SignatureError(
            f"{name}: the signature is not that of {keys.name}",
            hint="the file was changed, or signed with another key: compare fingerprints with its maker",
        )


def is_signed(path: Path, keys: PublicKeys, plan: str) -> bool:
    """Whether a container says that it is of the round of `plan` (a digest) and `keys` signed what it says.

    Its tensors are not read: this is for a party's own files, which only a stranger would have replaced.
    """
    try:
        held = read(path)
        verify(held.metadata, keys, path.name)
    except (FormatError, SignatureError):
        return False
    return held.metadata.get("plan") == plan


def signed_by(path: Path, keys: PublicKeys, wanted: str) -> Metadata:
    """The document of the format `wanted` at `path` if `keys` signed it; else an empty one: others put it there."""
    try:
        document = read_document(path, wanted)
        verify(document, keys, path.name)
    except (FormatError, SignatureError):
        return {}
    return document


def _from_hex(text: str) -> bytes:
    """The bytes of lower-case hex; ValueError for another spelling: one signature, one file."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError("not lower-case hex without spaces")
    return data


def _message(document: Metadata) -> bytes:
    unsigned = {key: value for key, value in document.items() if key != "signature"}
    return _DOMAIN + canonical_json(unsigned).encode("ascii")


def write_document(path: Path, document: Metadata, *, force: bool = False) -> None:
    """Writes a document as canonical JSON and one newline, whole or not at all. Who may read it follows from its
    format."""
    write_file(path, canonical_json(document).encode("ascii") + b"\n", force=force, mode=mode_of(document))


def read_document(path: Path, *expected: str) -> Metadata:
    """Reads a document of an expected format and version 1, or of any; its signature is not looked at here."""
    with opened(path, *expected) as file:
        text = file.read(MAX_HEADER + 1)
    if (other := filetypes.wrong(path, *expected)) is not None and expected:
        raise other
    if text.startswith(_MARK) or text.endswith(b"\r\n"):
        raise FormatError(
            f"{path.name}: its line endings were changed, or a byte order mark added",
            hint="send it as a binary file, not as text: ask its sender for a fresh copy",
        )
    if len(text) > MAX_HEADER or not text.endswith(b"\n"):
        raise FormatError(f"{path.name}: truncated, or something was added", hint=GET_AGAIN)
    document = parse_canonical_json(text[:-1], path.name)
    if not isinstance(document, dict) or "format" not in document:
        raise filetypes.not_wanted(path.name, filetypes.describe(path), *expected)
    check_format(document, path.name, *expected)
    return document


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


class Fields:
    """Typed access to a parsed object, so that a hostile or foreign document gives one clear FormatError."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, dict):
            raise FormatError(f"{name}: an object is expected", hint=GET_AGAIN)
        self._values: Metadata = values
        self._name = name

    def text(self, key: str) -> str:
        """A string that can be shown: no control characters, which a terminal would obey."""
        value: str = self._of(key, str)
        if not value.isprintable():
            raise self._error(f"{key} is not printable")
        return value

    def number(self, key: str, *, least: int = 0, most: int = 1 << 53) -> int:
        """A whole number within bounds."""
        value: int = self._of(key, int)
        if not least <= value <= most:
            raise self._error(f"{key} is {value}, outside {least}..{most}")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value: bool = self._of(key, bool)
        return value

    def real(self, key: str) -> float:
        """A finite number."""
        value: Any = self._values.get(key)
        if not _is_real(value):
            raise self._error(f"{key} is missing or no number that a float can be")
        return float(value)

    def reals(self, key: str) -> list[float]:
        """A list of finite numbers."""
        values: list[Any] = self._of(key, list)
        if not all(map(_is_real, values)):
            raise self._error(f"{key} holds something else than numbers that a float can be")
        return [float(value) for value in values]

    def digest(self, key: str) -> str:
        """A SHA-256 in lower-case hex."""
        value = self.text(key)
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise self._error(f"{key} is no digest")
        return value

    def digest_or_none(self, key: str) -> str | None:
        """A SHA-256, or null; a missing entry does not pass for null, as two documents would then say the same."""
        if key in self._values and self._values[key] is None:
            return None
        return self.digest(key)

    def octets(self, key: str) -> bytes:
        """Bytes in hex."""
        try:
            return _from_hex(self.text(key))
        except ValueError:
            raise self._error(f"{key} is not hex") from None

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        values: list[Any] = self._of(key, list)
        if not all(isinstance(value, str) and value.isprintable() for value in values):
            raise self._error(f"{key} holds something else than text")
        return values

    def text_lists(self, key: str) -> list[list[str]]:
        """A list of lists of strings."""
        values: list[Any] = self._of(key, list)
        return [Fields({key: value}, self._name).texts(key) for value in values]

    def objects(self, key: str) -> list[Fields]:
        """A list of objects."""
        values: list[Any] = self._of(key, list)
        return [Fields(value, f"{self._name}: {key}[{index}]") for index, value in enumerate(values)]

    def object(self, key: str) -> Fields:
        """An object."""
        return Fields(self._of(key, dict), f"{self._name}: {key}")

    @property
    def values(self) -> Metadata:
        """The object itself."""
        return self._values

    def _of(self, key: str, kind: type[Any]) -> Any:
        value = self._values.get(key)
        if type(value) is not kind:
            raise self._error(f"{key} is missing or not {kind.__name__}")
        return value

    def _error(self, text: str) -> FormatError:
        return FormatError(f"{self._name}: {text}", hint=GET_AGAIN)
