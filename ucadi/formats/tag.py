"""Tags: what a site says of its own upload once the receipt is there, so that every member can check the sum.

128 sums of the upload's words (see `lwe.tags`), signed, for one receipt; they add up to those of the round's sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucadi.errors import FormatError, MismatchError
from ucadi.formats.container import GET_AGAIN, Metadata
from ucadi.formats.roster import Roster
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import SecretKeys
from ucadi.kinds import Format
from ucadi.lwe import tags
from ucadi.lwe.tags import Tag

FORMAT = Format.TAG.id

_FIELDS = {"format", "version", "federation", "plan", "receipt", "site", "sums", "signature"}


@dataclass(frozen=True)
class SiteTag:
    """A site's tag of its upload: `plan` and `receipt` are the digests of these files, `sums` has shape (128,)."""

    federation: str
    plan: str
    receipt: str
    site: str
    sums: Tag


def write(path: Path, tag: SiteTag, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes a tag, signed by `keys`, which must be its site's."""
    if keys.name != tag.site:
        raise MismatchError(f"a tag of {tag.site}: the key is that of {keys.name}")
    document = {
        **Format.TAG.head,
        "federation": tag.federation,
        "plan": tag.plan,
        "receipt": tag.receipt,
        "site": tag.site,
        "sums": tag.sums.astype("<u8").tobytes().hex(),
    }
    write_document(path, sign(document, keys), force=force)


def parse(document: Metadata, name: str) -> SiteTag:
    """The tag that a document holds; whose signature it bears is not looked at here."""
    fields = Fields(document, name)
    sums = fields.octets("sums")
    if set(document) != _FIELDS or len(sums) != 8 * tags.SUBSETS:
        raise FormatError(f"{name}: says more, or less, than a tag does", hint=GET_AGAIN)
    return SiteTag(
        fields.text("federation"),
        fields.digest("plan"),
        fields.digest("receipt"),
        fields.text("site"),
        np.frombuffer(sums, "<u8"),
    )


def read(path: Path, roster: Roster) -> SiteTag:
    """Reads a tag and checks that the member of the roster that it names signed it."""
    document = read_document(path, FORMAT)
    tag = parse(document, path.name)
    verify(document, roster.member(tag.site), path.name)
    return tag
