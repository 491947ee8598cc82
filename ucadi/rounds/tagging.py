"""Checking a round's sum without any upload: every site tags its own, and the tags add up to that of the sum.

The receipt fixes the uploads and their sum by their digests. Its own digest and the plan's then choose the subsets
that tags are of (see `lwe.tags`), so that whoever chooses a sum cannot choose the subsets, and the other way round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucadi.errors import FormatError, MismatchError, UcadiError, UsageError
from ucadi.formats import tag as tag_format
from ucadi.formats.ciphertext import Ciphertext, CiphertextSum
from ucadi.formats.container import file_digest
from ucadi.formats.exchange import Exchange
from ucadi.formats.receipt import Receipt
from ucadi.formats.tag import SiteTag
from ucadi.identity import SecretKeys
from ucadi.kinds import Kind
from ucadi.lwe.ring import Polynomials
from ucadi.lwe.tags import Tag, tag_of
from ucadi.rounds.closing import read_own_upload, read_receipt_file, reason
from ucadi.rounds.round import Round
from ucadi.rounds.verification import check_addition


@dataclass(frozen=True)
class Tags:
    """The tags at hand for one receipt of a round by their site, and why other files do not count by their name."""

    round_: Round
    receipt: Receipt
    receipt_digest: str
    tags: Mapping[str, SiteTag]
    refused: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """The contributing sites of which no good tag is here, sorted."""
        return tuple(site for site in sorted(self.receipt.contributions) if site not in self.tags)

    def check(self, total: CiphertextSum, path: Path) -> bool:
        """Compares the tag of a checked sum, read from `path`, with all sites' tags added; False if some are missing.

        MismatchError if it is not the receipt's sum, or if the tags do not add up to its own.
        """
        if self.receipt.sum != file_digest(path):
            raise MismatchError(
                f"{path.name}: not the sum that the receipt names", hint="do not go on, ask the coordinator"
            )
        if list(total.sites) != sorted(self.receipt.contributions):
            raise MismatchError(
                f"{path.name}: the sum of other sites than the receipt names", hint="do not go on, ask the coordinator"
            )
        if self.missing:
            return False
        added = np.stack([tag.sums for tag in self.tags.values()]).sum(axis=0, dtype=np.uint64)
        if not np.array_equal(added, self._tag(total.ciphertext)):
            raise MismatchError(
                f"{path.name}: round {self.round_.plan.round}: the coordinator's sum is not that of the uploads, or "
                f"the tag of one of these sites is false: {', '.join(sorted(self.tags))}",
                hint="do not open it. Ask the coordinator for ucadi verify EXCHANGE, which names a false tag; if it "
                "names none, somebody who is no member adds the uploads again with ucadi verify sum.enc *.enc",
            )
        return True

    def false(self, uploads: Mapping[Path, Ciphertext]) -> tuple[str, ...]:
        """The sites whose tag is not that of their upload, as far as both are here and the receipt names the upload."""
        found = []
        for path, upload in uploads.items():
            site = upload.contribution.site
            if site not in self.tags or self.receipt.contributions[site] != file_digest(path):
                continue
            if not np.array_equal(self.tags[site].sums, self._tag(upload.ciphertext)):
                found.append(site)
        return tuple(sorted(found))

    def _tag(self, ciphertext: Polynomials) -> Tag:
        return tag_of(ciphertext, tag_seed(self.round_, self.receipt_digest))


def tag_seed(round_: Round, receipt: str) -> bytes:
    """The seed of the subsets that tags for a receipt, given by its digest, are of."""
    return hashlib.sha256(bytes.fromhex(round_.plan_digest) + bytes.fromhex(receipt)).digest()


def write_tag(path: Path, upload: Path, receipt: Path, round_: Round, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes the tag of one's own upload for a receipt.

    MismatchError if the receipt lists another file as the upload of this site, or none.
    """
    said, digest = read_receipt_file(receipt, round_)
    listed = said.contributions.get(keys.name)
    if said.status == "void" or listed is None:
        raise MismatchError(
            f"{receipt.name}: no upload of {keys.name} is in the sum", hint="there is nothing to tag in this round"
        )
    if file_digest(upload) != listed:
        raise MismatchError(
            f"{receipt.name}: lists another file than {upload.name} as the upload of {keys.name}",
            hint="if this is the file that you sent, the coordinator added another one: do not go on, and ask it",
        )
    round_.roster.index(keys)
    sums = tag_of(read_own_upload(upload, round_, keys.name).ciphertext, tag_seed(round_, digest))
    tag = SiteTag(round_.plan.federation, round_.plan_digest, digest, keys.name, sums)
    tag_format.write(path, tag, keys, force=force)


def check_tag(tag: SiteTag, round_: Round, receipt: Receipt, digest: str, name: str) -> None:
    """Raises MismatchError unless a tag is of this round and receipt, by a site that contributed."""
    if (tag.federation, tag.plan) != (round_.plan.federation, round_.plan_digest):
        raise MismatchError(f"{name}: the tag of another round", hint=f"ask {tag.site} for that of this round")
    if tag.receipt != digest:
        raise MismatchError(
            f"{name}: {tag.site} was given another receipt of round {round_.plan.round}",
            hint=f"the coordinator may sign only one: compare yours, {digest[:8]}…, with that of {tag.site}",
        )
    if tag.site not in receipt.contributions:
        raise MismatchError(f"{name}: {tag.site} contributed nothing", hint="leave it out")


def read_tags(paths: Iterable[Path], round_: Round, receipt: Receipt, digest: str, *, by_name: bool = False) -> Tags:
    """Reads tags for a receipt and its digest; a bad one counts as missing and never stops the others.

    `by_name`: each must lie in a file that is named by its site, as in an exchange directory.
    """
    good: dict[str, SiteTag] = {}
    refused: dict[str, str] = {}
    for path in paths:
        try:
            tag = tag_format.read(path, round_.roster)
            check_tag(tag, round_, receipt, digest, path.name)
            if by_name and tag.site != path.stem:
                raise MismatchError(f"{path.name}: the tag of {tag.site}")
        except UcadiError as error:
            refused[path.name] = reason(error)
        else:
            good[tag.site] = tag
    return Tags(round_, receipt, digest, good, refused)


def read_round_tags(exchange: Exchange, number: int, round_: Round, receipt: Receipt, digest: str) -> Tags:
    """The tags of the contributing sites that lie in their places in the exchange directory."""
    here = [site for site in sorted(receipt.contributions) if exchange.has(Kind.TAG, number, site)]
    paths = [exchange.path(Kind.TAG, number, site) for site in here]
    return read_tags(paths, round_, receipt, digest, by_name=True)


def how_checked(total: CiphertextSum, path: Path, uploads: Sequence[Ciphertext], tags: Tags | None) -> str:
    """Checks a sum by what is at hand, its uploads or its tags, and says by which; empty if neither is complete.

    MismatchError if the sum is not that of its uploads.
    """
    if check_addition(total, uploads, path.name):
        return "adding again gives the same"
    return "its sites' tags add up to its own" if tags is not None and tags.check(total, path) else ""


def false_tag(site: str) -> str:
    """Says that a site has lied in its tag."""
    return f"{site}: its tag is not that of its upload"


def read_uploads(exchange: Exchange, number: int, round_: Round, sites: Iterable[str]) -> dict[Path, Ciphertext]:
    """The good uploads of these sites that are here; the others are passed over."""
    found = {}
    for site in sites:
        path = exchange.path(Kind.UPLOAD, number, site)
        with suppress(UcadiError):
            found[path] = read_own_upload(path, round_, site)
    return found


def read_given(round_: Round, receipt: Path | None, tags: Sequence[Path]) -> Tags | None:
    """The tags (files, or folders of them) and the receipt that a user gave; None where neither was given."""
    if receipt is None:
        if tags:
            raise UsageError("whose tags count is said by the round's receipt", hint="--receipt FILE, with --tag")
        return None
    files = [file for one in tags for file in (_inside(one) if one.is_dir() else [one])]
    return read_tags(files, round_, *read_receipt_file(receipt, round_))


def _inside(folder: Path) -> list[Path]:
    """The tags in a folder; FormatError if there are none."""
    found = sorted(folder.glob("*.json"))
    if not found:
        raise FormatError(f"{folder}: no tag is in it", hint="tags are files SITE.json, in an exchange directory")
    return found


def check_given(
    total: CiphertextSum, path: Path, round_: Round, receipt: Path | None, tags: Sequence[Path], *, unchecked: bool
) -> tuple[str, ...]:
    """Checks a sum by what `read_given` takes; the sites whose tags are missing, which are all without a receipt.

    MismatchError as `Tags.check` has it; also if tags are missing, unless `unchecked` says to go on.
    """
    given = read_given(round_, receipt, tags)
    if given is None:
        if unchecked:
            raise UsageError("without a receipt no sum is checked", hint="leave out --unchecked")
        return total.sites
    if not given.check(total, path) and not unchecked:
        raise MismatchError(
            "; ".join([f"no good tag of {', '.join(given.missing)}", *given.refused.values()]),
            hint="wait for it; --unchecked goes on without, and states it",
        )
    return given.missing
