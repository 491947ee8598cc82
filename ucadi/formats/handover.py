"""Handovers: the weights that a round begins with, sealed by a member to all members of the round's roster.

Only the digest of a federation's model is public. Who joins later gets the model itself from a member, by
way of a coordinator and a relay that cannot read it. The weights are encrypted once, block by block, under a
fresh key that is sealed to each member.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ucadi.formats import container, envelope
from ucadi.formats.container import Container, Digests, Metadata, Stream
from ucadi.formats.signed import sign
from ucadi.identity import AUTHENTICATION_BYTES, SecretKeys
from ucadi.kinds import Format

FORMAT = Format.HANDOVER.id

BLOCK = 1 << 22
"""Bytes of a weights file that are encrypted together."""


@dataclass(frozen=True)
class Handover:
    """A sealed weights file. `body` is what `encrypt_stream` made of it, `sealed` (members, bytes) its key for each."""

    site: str
    plan: str
    body: npt.NDArray[np.uint8]
    sealed: npt.NDArray[np.uint8]
    document: Metadata

    def blocks(self) -> Iterator[bytes]:
        """The encrypted blocks in order."""
        step = BLOCK + AUTHENTICATION_BYTES
        for start in range(0, len(self.body), step):
            yield self.body[start : start + step].tobytes()


def write(
    path: Path,
    size: int,
    encrypted: Iterable[bytes],
    sealed: npt.NDArray[np.uint8],
    *,
    plan: str,
    keys: SecretKeys,
    force: bool = False,
) -> None:
    """Writes a handover, signed by `keys`; `encrypted` are the blocks of a file of `size` bytes."""

    def document(digests: Digests) -> Metadata:
        fields = {**Format.HANDOVER.head, "plan": plan, "site": keys.name, "digests": dict(digests)}
        return sign(fields, keys)

    length = size + AUTHENTICATION_BYTES * -(-size // BLOCK)
    body = Stream("U8", (length,), (np.frombuffer(block, np.uint8) for block in encrypted))
    container.write(path, {"body": body, "sealed": sealed}, document, force=force)


def read(path: Path) -> Handover:
    """Reads a handover and checks its digests; whose signature it bears is checked against a roster."""
    return parse(container.read(path, FORMAT), path.name)


def parse(held: Container, name: str) -> Handover:
    """The handover that a container holds."""
    fields, body, sealed = envelope.parse(held, name)
    return Handover(fields.text("site"), fields.digest("plan"), body, sealed, held.metadata)
