"""Key files: a party's secret keys, which never leave its machine, and its card, which everyone may see."""

from __future__ import annotations

import stat
from pathlib import Path

from ucadi.errors import FormatError, OutputError, SignatureError
from ucadi.formats.container import Metadata
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import PublicKeys, SecretKeys

KEY_FORMAT = "ucadi-key"
CARD_FORMAT = "ucadi-card"


def write_key(path: Path, keys: SecretKeys) -> None:
    """Writes secret keys, readable by their owner alone. An existing key file is never replaced."""
    if path.exists():
        raise OutputError(f"{path}: exists already", hint="keys are never replaced; move the old one away by hand")
    document = {"format": KEY_FORMAT, "version": 1, "name": keys.name}
    secrets = {"signing": keys.signing.hex(), "sealing": keys.sealing.hex()}
    write_document(path, document | secrets, mode=0o600)


def read_key(path: Path) -> SecretKeys:
    """Reads secret keys; a file that others can read is refused, as its secrets may be known."""
    fields = Fields(read_document(path, KEY_FORMAT), path.name)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SignatureError(f"{path}: others than its owner have access to this key", hint=f"chmod 600 {path}")
    return SecretKeys(fields.text("name"), fields.octets("signing"), fields.octets("sealing"))


def write_card(path: Path, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes the public card of `keys`, signed by itself so that nobody can put a name to keys they lack."""
    document = {"format": CARD_FORMAT, "version": 1, **card_fields(keys.public)}
    write_document(path, sign(document, keys), force=force)


def read_card(path: Path) -> PublicKeys:
    """Reads a card and checks its own signature."""
    document = read_document(path, CARD_FORMAT)
    keys = parse_card(Fields(document, path.name))
    verify(document, keys, path.name)
    return keys


def card_fields(keys: PublicKeys) -> Metadata:
    """Public keys as they stand in cards and rosters."""
    return {"name": keys.name, "signing": keys.signing.hex(), "sealing": keys.sealing.hex()}


def parse_card(fields: Fields) -> PublicKeys:
    """Public keys from a card or a roster."""
    try:
        return PublicKeys(fields.text("name"), fields.octets("signing"), fields.octets("sealing"))
    except SignatureError as error:
        raise FormatError(error.message) from None
