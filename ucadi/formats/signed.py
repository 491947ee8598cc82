"""Signed documents: canonical JSON objects with a format, a version and an Ed25519 signature.

The signature covers a domain tag and the canonical JSON of the document without its `signature`. Rosters,
plans and cards are such documents in files of their own; ciphertexts carry one in their metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ucadi.errors import FormatError, SignatureError
from ucadi.formats.container import MAX_HEADER, Metadata, canonical_json, check_format, parse_canonical_json
from ucadi.formats.output import write_file
from ucadi.identity import PublicKeys, SecretKeys

_DOMAIN = b"ucadi/signed/v1\n"


def sign(document: Metadata, keys: SecretKeys) -> Metadata:
    """The document with its signature by `keys`."""
    return {**document, "signature": keys.sign(_message(document)).hex()}


def verify(document: Metadata, keys: PublicKeys, name: str) -> None:
    """Raises SignatureError, naming `name`, unless `keys` signed exactly this document."""
    signature = document.get("signature")
    try:
        signed = isinstance(signature, str) and keys.verify(_message(document), bytes.fromhex(signature))
    except ValueError:
        signed = False
    if not signed:
        raise SignatureError(
            f"{name}: the signature is not that of {keys.name}",
            hint="the file was changed, or signed with another key: compare fingerprints with its maker",
        )


def _message(document: Metadata) -> bytes:
    unsigned = {key: value for key, value in document.items() if key != "signature"}
    return _DOMAIN + canonical_json(unsigned).encode("ascii")


def write_document(path: Path, document: Metadata, *, force: bool = False, mode: int = 0o644) -> None:
    """Writes a document as canonical JSON and one newline, whole or not at all."""
    write_file(path, canonical_json(document).encode("ascii") + b"\n", force=force, mode=mode)


def read_document(path: Path, expected_format: str | None) -> Metadata:
    """Reads a document of the expected format and version 1, or of any; its signature is not looked at here."""
    kind = expected_format or "ucadi"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_HEADER + 1)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    if len(text) > MAX_HEADER or not text.endswith(b"\n"):
        raise FormatError(f"{path.name}: not a {kind} file")
    document = parse_canonical_json(text[:-1], path.name)
    if not isinstance(document, dict) or "format" not in document:
        raise FormatError(f"{path.name}: not a {kind} file")
    if expected_format is not None:
        check_format(document, expected_format, path.name)
    return document


class Fields:
    """Typed access to a parsed object, so that a hostile or foreign document gives one clear FormatError."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, dict):
            raise FormatError(f"{name}: an object is expected")
        self._values: Metadata = values
        self._name = name

    def text(self, key: str) -> str:
        """A string."""
        value: str = self._of(key, str)
        return value

    def number(self, key: str, *, least: int = 0, most: int = 1 << 53) -> int:
        """A whole number within bounds."""
        value: int = self._of(key, int)
        if not least <= value <= most:
            raise FormatError(f"{self._name}: {key} is {value}, outside {least}..{most}")
        return value

    def real(self, key: str) -> float:
        """A finite number."""
        value = self._values.get(key)
        if type(value) not in (int, float):
            raise FormatError(f"{self._name}: {key} is missing or no number")
        return float(value)  # type: ignore[arg-type] # canonical JSON holds no NaN and no infinity

    def digest(self, key: str) -> str:
        """A SHA-256 in lower-case hex."""
        value = self.text(key)
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise FormatError(f"{self._name}: {key} is no digest")
        return value

    def octets(self, key: str) -> bytes:
        """Bytes in hex."""
        try:
            return bytes.fromhex(self.text(key))
        except ValueError:
            raise FormatError(f"{self._name}: {key} is not hex") from None

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        values: list[Any] = self._of(key, list)
        if not all(isinstance(value, str) for value in values):
            raise FormatError(f"{self._name}: {key} holds something else than text")
        return values

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
            raise FormatError(f"{self._name}: {key} is missing or not {kind.__name__}")
        return value
