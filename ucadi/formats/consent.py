"""Consents: a member's signed word that people there have seen a roster and accept it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ucadi.errors import FormatError, MismatchError
from ucadi.fed.sizing import BANDS
from ucadi.formats.roster import Roster
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import Format

FORMAT = Format.CONSENT.id


@dataclass(frozen=True)
class Consent:
    """`site` accepts the roster of this digest and sequence.

    `ledger` is the head of the site's ledger then; `lot` the anchor of its chain for lots; `size_band` the power of
    four that its examples do not exceed, where the site states it.
    """

    federation: str
    roster: str
    sequence: int
    site: str
    ledger: str
    lot: str
    size_band: int | None = None


def write(path: Path, consent: Consent, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes a consent, signed by the site's `keys`."""
    document = {
        **Format.CONSENT.head,
        "federation": consent.federation,
        "roster": consent.roster,
        "sequence": consent.sequence,
        "site": consent.site,
        "ledger": consent.ledger,
        "lot": consent.lot,
        "size_band": consent.size_band,
    }
    write_document(path, sign(document, keys), force=force)


def read(path: Path, keys: PublicKeys) -> Consent:
    """Reads a consent and checks that `keys` signed it, whose name it must bear."""
    document = read_document(path, FORMAT)
    verify(document, keys, path.name)
    fields = Fields(document, path.name)
    if fields.text("site") != keys.name:
        raise MismatchError(f"{path.name}: a consent of {fields.text('site')}, signed by {keys.name}")
    band = fields.number("size_band") if document.get("size_band") is not None else None
    if band is not None and band not in BANDS:
        raise FormatError(f"{path.name}: {band} is no size band", hint="a power of four: ask its site for another")
    return Consent(
        fields.text("federation"),
        fields.digest("roster"),
        fields.number("sequence", least=1),
        keys.name,
        fields.digest("ledger"),
        fields.digest("lot"),
        band,
    )


def check_for(consent: Consent, roster: Roster, name: str) -> None:
    """Raises MismatchError unless the consent is to this very roster."""
    if (consent.federation, consent.roster, consent.sequence) != (roster.federation, roster.digest, roster.sequence):
        raise MismatchError(f"{name}: a consent to another roster", hint=f"ask {consent.site} to accept this one")
