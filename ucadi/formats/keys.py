"""Key files: a party's secret keys, which never leave its machine, and its card, which everyone may see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ucadi.errors import FormatError, OutputError, SignatureError, UsageError
from ucadi.files import check_secret
from ucadi.formats.container import GET_AGAIN, Metadata, canonical_json
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import Format

KEY_FORMAT = Format.KEY.id
CARD_FORMAT = Format.CARD.id


def write_key(path: Path, keys: SecretKeys) -> None:
    """Writes secret keys, readable by their owner alone. An existing key file is never replaced."""
    if path.exists():
        raise OutputError(f"{path}: exists already", hint="keys are never replaced; move the old one away by hand")
    document = {**Format.KEY.head, "name": keys.name}
    secrets = {"signing": keys.signing.hex(), "sealing": keys.sealing.hex(), "transport": keys.transport.hex()}
    write_document(path, document | secrets, mode=0o600)


def read_key(path: Path) -> SecretKeys:
    """Reads secret keys; a file that others can read is refused, as its secrets may be known."""
    fields = Fields(read_document(path, KEY_FORMAT), path.name)
    check_secret(path, "key")
    parts = (fields.octets(part) for part in ("signing", "sealing", "transport"))
    try:
        return SecretKeys(fields.text("name"), *parts)
    except (SignatureError, UsageError) as error:
        raise FormatError(f"{path.name}: {error.message}", hint="use the key file as keygen made it") from None


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
