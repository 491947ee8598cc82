"""Partial decryptions: one member's partial decryption to a round's sum in threshold mode, sealed to the members.

The answer is encrypted once, under a fresh key that is sealed to each member: the aggregator, who passes
it on, learns nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ucadi.formats import container, envelope
from ucadi.formats.container import Container, Digests, Metadata
from ucadi.formats.signed import sign
from ucadi.identity import SecretKeys
from ucadi.kinds import Format

FORMAT = Format.PARTIAL.id


@dataclass(frozen=True)
class Partial:
    """One member's partial decryption. `contributions` is the digest of the set that it is for, `body` the encrypted
    share, `sealed` (members, bytes) the key to it for each member. `unchecked` are the sites in the sum whose tags the
    member had not: if there are any, it did not check the sum."""

    member: str
    plan: str
    contributions: str
    body: npt.NDArray[np.uint8]
    sealed: npt.NDArray[np.uint8]
    document: Metadata
    unchecked: tuple[str, ...]


def write(
    path: Path,
    body: bytes,
    sealed: npt.NDArray[np.uint8],
    *,
    plan: str,
    contributions: str,
    unchecked: Sequence[str],
    keys: SecretKeys,
    force: bool = False,
) -> None:
    """Writes a partial decryption, signed by the member."""

    def document(digests: Digests) -> Metadata:
        fields = {
            **Format.PARTIAL.head,
            "plan": plan,
            "site": keys.name,
            "contributions": contributions,
            "unchecked": list(unchecked),
            "digests": dict(digests),
        }
        return sign(fields, keys)

    container.write(path, {"body": np.frombuffer(body, np.uint8), "sealed": sealed}, document, force=force)


def read(path: Path) -> Partial:
    """Reads a partial decryption and checks its digests; whose signature it bears is checked against a roster."""
    return parse(container.read(path, FORMAT), path.name)


def parse(held: Container, name: str) -> Partial:
    """The partial decryption that a container holds."""
    fields, body, sealed = envelope.parse(held, name)
    return Partial(
        fields.text("site"),
        fields.digest("plan"),
        fields.digest("contributions"),
        body,
        sealed,
        held.metadata,
        tuple(fields.texts("unchecked")),
    )
