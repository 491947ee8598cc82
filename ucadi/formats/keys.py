"""Key files: a party's secret keys, which never leave its machine, and its card, which everyone may see.

A passphrase may protect the keys: docs/formats/documents.md says how.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ucadi import passphrases
from ucadi.errors import FormatError, OutputError, SignatureError, UsageError
from ucadi.files import check_secret, claim_file, file_digest, read_bytes
from ucadi.formats.container import GET_AGAIN, Metadata, canonical_json
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import (
    AUTHENTICATION_BYTES,
    SEALING_SECRET_BYTES,
    PublicKeys,
    SecretKeys,
    decrypt_with,
    encrypt_with,
    stretch,
)
from ucadi.kinds import Format

KEY_FORMAT = Format.KEY.id
CARD_FORMAT = Format.CARD.id

_PARTS = {"signing": 32, "sealing": 96, "transport": 32}
"""The three secrets of a key file, with their bytes, in the order in which they are encrypted."""

_ENCRYPTED_BYTES = sum(_PARTS.values()) + AUTHENTICATION_BYTES

_ROUND_KEY = f"a round's sealing key of {SEALING_SECRET_BYTES} bytes"

_AS_MADE = "use the key file as keygen made it"


_COST = 1 << 17
"""scrypt's n, of what is written: 128 MiB of memory and about half a second."""

_COSTS = (_COST, 2 * _COST)
"""What is read: no less, which would be weak, and no more, as a stranger's file must not take the machine's memory."""

_SALT_BYTES = 16

_opened: dict[tuple[str, Path | None], SecretKeys] = {}
"""Keys that a passphrase has opened, by their file's digest and the file named for it: a process asks once for each."""


def write_key(path: Path, keys: SecretKeys, passphrase: str | None = None, *, force: bool = False) -> None:
    """Writes secret keys, readable by their owner alone, and encrypted where there is a passphrase.

    An existing key file is replaced with `force` only, which is for the same keys under another passphrase.
    """
    if not force:
        check_new(path)
    head = {**Format.KEY.head, "name": keys.name}
    parts = {part: getattr(keys, part) for part in _PARTS}
    if passphrase is None:
        secrets = {part: octets.hex() for part, octets in parts.items()}
    else:
        salt = os.urandom(_SALT_BYTES)
        head["scrypt"] = {"n": _COST, "r": 8, "p": 1, "salt": salt.hex()}
        encrypted = encrypt_with(stretch(passphrase, salt, _COST), b"".join(parts.values()), _locked(head))
        secrets = {"encrypted": encrypted.hex()}
    try:
        write_document(path, head | secrets, force=force)
    except OutputError:
        if not force:
            check_new(path)  # somebody else was quicker
        raise


def check_new(path: Path) -> None:
    """Raises OutputError if anything lies where a key or a card is to be made."""
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists already", hint="keys are never replaced; move the old one away by hand")


def read_key(path: Path, round_key: Path | None = None) -> SecretKeys:
    """Reads secret keys; a file that others can read is refused, as its secrets may be known.

    Where a passphrase protects them, it is asked for, once in a process (`ucadi.passphrases`). `round_key` is the file
    of a sealing key for one round.
    """
    keys = _read_long_term(path)
    return keys if round_key is None else replace(keys, round_sealing=read_round_key(round_key))


def make_round_key(path: Path) -> bytes:
    """The secret sealing key in a file for one round, which is made, and on the disk when this returns, if it is not
    there yet."""
    claim_file(path, os.urandom(SEALING_SECRET_BYTES))
    return read_round_key(path)


def read_round_key(path: Path) -> bytes:
    """A secret sealing key for one round; errors as those of `read_key`."""
    check_secret(path, "round key")
    secret = read_bytes(path, SEALING_SECRET_BYTES, words=_ROUND_KEY)
    if len(secret) != SEALING_SECRET_BYTES:
        raise FormatError(f"{path}: {len(secret)} bytes, not {_ROUND_KEY}", hint="use the file that site run made")
    return secret


def _read_long_term(path: Path) -> SecretKeys:
    document = read_document(path, KEY_FORMAT)
    check_secret(path, "key")
    fields = Fields(document, path.name)
    if "encrypted" in document:
        digest = file_digest(path), passphrases.named()
        if digest not in _opened:
            _opened[digest] = _unlock(fields, path)
        return _opened[digest]
    passphrases.refuse_unneeded(path)
    return _keys(fields.text("name"), (fields.octets(part) for part in _PARTS), path)


def _unlock(fields: Fields, path: Path) -> SecretKeys:
    scrypt = fields.object("scrypt")
    cost, salt, encrypted = scrypt.number("n"), scrypt.octets("salt"), fields.octets("encrypted")
    if cost not in _COSTS or (scrypt.number("r"), scrypt.number("p"), len(salt)) != (8, 1, _SALT_BYTES):
        raise FormatError(f"{path.name}: scrypt with other parameters than are read here", hint=_AS_MADE)
    if set(fields.values) != {*Format.KEY.head, "name", "scrypt", "encrypted"} or len(encrypted) != _ENCRYPTED_BYTES:
        raise FormatError(f"{path.name}: not as keygen writes it", hint=_AS_MADE)
    head = {key: value for key, value in fields.values.items() if key != "encrypted"}
    try:
        secrets = decrypt_with(stretch(passphrases.ask(path), salt, cost), encrypted, _locked(head))
    except SignatureError:
        raise SignatureError(f"{path}: the passphrase does not open it", hint="is it the one of this key?") from None
    stream = io.BytesIO(secrets)
    return _keys(fields.text("name"), (stream.read(size) for size in _PARTS.values()), path)


def _keys(name: str, parts: Iterable[bytes], path: Path) -> SecretKeys:
    try:
        return SecretKeys(name, *parts)
    except (SignatureError, UsageError) as error:
        raise FormatError(f"{path.name}: {error.message}", hint=_AS_MADE) from None


def _locked(head: Metadata) -> bytes:
    """What the encrypted keys are bound to: all that stands beside them."""
    return b"ucadi/key/v1\n" + canonical_json(head).encode("ascii")


@dataclass(frozen=True)
class Card:
    """A party's public keys, and the signature under them by the keys that they replace, if there is one."""

    keys: PublicKeys
    endorsement: bytes | None = None

    def endorsed_by(self, old: PublicKeys) -> bool:
        """Whether whoever held the old keys vouches for the new ones."""
        return self.endorsement is not None and old.verify(_endorsed(self.keys), self.endorsement)


def write_card(path: Path, keys: SecretKeys, *, old: SecretKeys | None = None) -> None:
    """Writes the public card of `keys`, signed by itself so that nobody can put a name to keys they lack.

    With `old`, the keys that these replace, the card bears their endorsement.
    """
    document = {**Format.CARD.head, **card_fields(keys.public)}
    if old is not None:
        document["endorsement"] = old.sign(_endorsed(keys.public)).hex()
    write_document(path, sign(document, keys))


def read_card(path: Path) -> Card:
    """Reads a card and checks its own signature."""
    document = read_document(path, CARD_FORMAT)
    fields = Fields(document, path.name)
    keys = parse_card(fields)
    verify(document, keys, path.name)
    return Card(keys, fields.octets("endorsement") if "endorsement" in document else None)


def _endorsed(keys: PublicKeys) -> bytes:
    return b"ucadi/endorsement/v1\n" + canonical_json(card_fields(keys)).encode("ascii")


def card_fields(keys: PublicKeys) -> Metadata:
    """Public keys as they stand in cards and rosters."""
    return {
        "name": keys.name,
        "signing": keys.signing.hex(),
        "sealing": keys.sealing.hex(),
        "transport": keys.transport.hex(),
    }


def parse_card(fields: Fields) -> PublicKeys:
    """Public keys from a card or a roster."""
    name = fields.text("name")
    try:
        keys = PublicKeys(name, fields.octets("signing"), fields.octets("sealing"), fields.octets("transport"))
        keys.seal(b"", b"")  # bytes that are no keys would fail every site's encryption
    except (SignatureError, UsageError) as error:
        raise FormatError(error.message, hint=error.hint or GET_AGAIN) from None
    except ValueError:
        raise FormatError(f"{name}: nothing can be sealed to this key", hint="make keys with keygen") from None
    return keys
