"""Verifying a round's files: signatures, and whether a sum is that of the uploads that it lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ucadi.errors import MismatchError
from ucadi.formats.ciphertext import Ciphertext, CiphertextSum
from ucadi.lwe import scheme
from ucadi.progress import track


def check_addition(total: CiphertextSum, uploads: Sequence[Ciphertext], name: str) -> bool:
    """Adds the uploads again and compares; False if not all that the sum lists are at hand.

    Raises MismatchError where the sum is another than that of its uploads.
    """
    at_hand = {upload.contribution.ciphertext_digest: upload for upload in uploads}
    parts = [at_hand.get(contribution.ciphertext_digest) for contribution in total.contributions]
    present = [part for part in parts if part is not None]
    if len(present) < len(parts):
        return False
    if any(part.ciphertext.shape != total.ciphertext.shape for part in present):
        raise MismatchError(f"{name}: lists an upload of another size", hint="do not use it, and ask the coordinator")
    for first in track(range(0, len(total.ciphertext), scheme.BLOCK), "adding again"):
        block = slice(first, first + scheme.BLOCK)
        if not np.array_equal(scheme.add(part.ciphertext[block] for part in present), total.ciphertext[block]):
            raise MismatchError(
                f"{name}: not the sum of the uploads that it lists", hint="do not use it, and ask the coordinator"
            )
    return True
