"""Ciphertexts: one site's encrypted update, and the sum of several.

Both hold the tensors `ciphertext` (uint64, polynomials x 4096) and `sealed` (bytes: what each roster member
needs to open it). Their metadata is a signed document that names the plan and the digests of both tensors.
The sum keeps the signed documents of all that was added, so that anyone can add again and compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ucadi.errors import FormatError, SignatureError
from ucadi.formats import container
from ucadi.formats.container import GET_AGAIN, Container, Digests, Metadata, Stream, tensor_digest
from ucadi.formats.signed import Fields, sign, verify
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import Format
from ucadi.lwe.parameters import DEGREE, SCHEME
from ucadi.lwe.ring import Polynomials

CIPHERTEXT_FORMAT = Format.CIPHERTEXT.id
SUM_FORMAT = Format.SUM.id

_TENSORS = {"ciphertext", "sealed"}
_DOCUMENT = {"format", "version", "scheme", "plan", "site", "digests", "signature"}

Sealed = npt.NDArray[np.uint8]
"""One row per receiver, in the roster's order; in a sum, one such matrix per contribution."""


@dataclass(frozen=True)
class Contribution:
    """The signed document of one site's ciphertext: who encrypted what, for which plan."""

    site: str
    plan: str
    ciphertext_digest: str
    sealed_digest: str
    document: Metadata


@dataclass(frozen=True)
class Ciphertext:
    """One site's encrypted update; `sealed` is (receivers, bytes)."""

    contribution: Contribution
    ciphertext: Polynomials
    sealed: Sealed


@dataclass(frozen=True)
class CiphertextSum:
    """The sum of several sites' ciphertexts; `sealed` is (contributions, receivers, bytes)."""

    plan: str
    contributions: tuple[Contribution, ...]
    ciphertext: Polynomials
    sealed: Sealed
    document: Metadata

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose updates are in the sum, sorted."""
        return tuple(contribution.site for contribution in self.contributions)


def write_ciphertext(
    path: Path,
    blocks: Iterable[Polynomials],
    polynomials: int,
    sealed: Stream,
    *,
    plan: str,
    keys: SecretKeys,
    force: bool = False,
) -> None:
    """Writes one site's ciphertext from blocks of polynomials, signed by the site's keys.

    `sealed` is made after all blocks have been written, so that the seals can be bound to them.
    """

    def document(digests: Digests) -> Metadata:
        fields = {
            **Format.CIPHERTEXT.head,
            "scheme": SCHEME,
            "plan": plan,
            "site": keys.name,
            "digests": dict(digests),
        }
        return sign(fields, keys)

    ciphertext = Stream("U64", (polynomials, DEGREE), blocks)
    container.write(path, {"ciphertext": ciphertext, "sealed": sealed}, document, force=force)


def read_ciphertext(path: Path) -> Ciphertext:
    """Reads one site's ciphertext and checks its digests; whose signature it bears is checked against a roster."""
    return parse_ciphertext(container.read(path, CIPHERTEXT_FORMAT), path.name)


def parse_ciphertext(held: Container, name: str) -> Ciphertext:
    """The ciphertext that a container holds."""
    ciphertext, sealed = _tensors(held, name, sealed_dimensions=2)
    contribution = parse_contribution(held.metadata, name)
    _check_digest(ciphertext, contribution.ciphertext_digest, name)
    _check_digest(sealed, contribution.sealed_digest, name)
    return Ciphertext(contribution, ciphertext, sealed)


def write_sum(
    path: Path,
    contributions: Iterable[Contribution],
    ciphertext: Stream,
    sealed: Stream,
    *,
    plan: str,
    keys: SecretKeys,
    force: bool = False,
) -> None:
    """Writes a sum of ciphertexts, signed by who added them."""

    def document(digests: Digests) -> Metadata:
        fields = {
            **Format.SUM.head,
            "scheme": SCHEME,
            "plan": plan,
            "contributions": [contribution.document for contribution in contributions],
            "digests": dict(digests),
        }
        return sign(fields, keys)

    container.write(path, {"ciphertext": ciphertext, "sealed": sealed}, document, force=force)


def read_sum(path: Path) -> CiphertextSum:
    """Reads a sum and checks its digests; signatures are checked against a roster."""
    return parse_sum(container.read(path, SUM_FORMAT), path.name)


def parse_sum(held: Container, name: str) -> CiphertextSum:
    """The sum that a container holds."""
    ciphertext, sealed = _tensors(held, name, sealed_dimensions=3)
    fields = Fields(held.metadata, name)
    _check_scheme(fields, name)
    documents = enumerate(fields.objects("contributions"))
    contributions = tuple(parse_contribution(inner.values, f"{name}: contributions[{i}]") for i, inner in documents)
    digests = fields.object("digests")
    _check_digest(ciphertext, digests.digest("ciphertext"), name)
    _check_digest(sealed, digests.digest("sealed"), name)
    sites = [contribution.site for contribution in contributions]
    if not sites or sites != sorted(set(sites)) or len(sealed) != len(sites):
        raise FormatError(f"{name}: a sum lists each contributing site once, by name, with its seals", hint=GET_AGAIN)
    for contribution, seals in zip(contributions, sealed, strict=True):
        _check_digest(seals, contribution.sealed_digest, f"{name}: seals of {contribution.site}")
    return CiphertextSum(fields.digest("plan"), contributions, ciphertext, sealed, held.metadata)


def verify_signature(document: Metadata, keys: PublicKeys, name: str) -> None:
    """Raises SignatureError unless the document of a contribution or a sum was signed with `keys`."""
    verify(document, keys, name)


def parse_contribution(document: Metadata, name: str) -> Contribution:
    """The signed document of a ciphertext, from its metadata or from a sum's."""
    fields = Fields(document, name)
    container.check_format(document, name, CIPHERTEXT_FORMAT)
    _check_scheme(fields, name)
    digests = fields.object("digests")
    # what a site could add here would fill the header of the sum
    if set(document) != _DOCUMENT or set(digests.values) != _TENSORS:
        raise FormatError(f"{name}: says more, or less, of itself than a ciphertext does", hint=GET_AGAIN)
    return Contribution(
        fields.text("site"),
        fields.digest("plan"),
        digests.digest("ciphertext"),
        digests.digest("sealed"),
        document,
    )


def _check_scheme(fields: Fields, name: str) -> None:
    if fields.text("scheme") != SCHEME:
        raise FormatError(f"{name}: encrypted by another scheme than {SCHEME}", hint="use the same release everywhere")


def _tensors(held: Container, name: str, sealed_dimensions: int) -> tuple[Polynomials, Sealed]:
    if set(held.tensors) != _TENSORS:
        raise FormatError(f"{name}: holds other tensors than a ciphertext's", hint=GET_AGAIN)
    ciphertext, sealed = held.tensors["ciphertext"], held.tensors["sealed"]
    if ciphertext.dtype != np.uint64 or ciphertext.ndim != 2 or ciphertext.shape[1] != DEGREE or not len(ciphertext):
        raise FormatError(f"{name}: polynomials of another shape than this scheme's", hint=GET_AGAIN)
    if sealed.dtype != np.uint8 or sealed.ndim != sealed_dimensions:
        raise FormatError(f"{name}: seals of another shape than this scheme's", hint=GET_AGAIN)
    return ciphertext, sealed


def _check_digest(tensor: npt.NDArray[np.generic], digest: str, name: str) -> None:
    if tensor_digest(tensor) != digest:
        raise SignatureError(
            f"{name}: its content is not what was signed",
            hint="it was altered in transit; ask its sender for a fresh copy",
        )
