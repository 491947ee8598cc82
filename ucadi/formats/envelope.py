"""An envelope: a body encrypted once, its key sealed to each member; so are handovers and partial decryptions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ucadi.errors import FormatError, SignatureError
from ucadi.formats.container import GET_AGAIN, Container, tensor_digest
from ucadi.formats.signed import Fields

Bytes = npt.NDArray[np.uint8]


def parse(held: Container, name: str) -> tuple[Fields, Bytes, Bytes]:
    """The fields, the body and what is sealed, (members, bytes), of the file `name`, whose digests are checked.

    Whose signature it bears is for the caller to check. FormatError for other tensors, SignatureError for others than
    were signed.
    """
    body, sealed = held.tensors.get("body"), held.tensors.get("sealed")
    if body is None or sealed is None or len(held.tensors) != 2:
        raise FormatError(f"{name}: holds other tensors than a body and its sealed keys", hint=GET_AGAIN)
    if body.dtype != np.uint8 or body.ndim != 1 or sealed.dtype != np.uint8 or sealed.ndim != 2:
        raise FormatError(f"{name}: tensors of other shapes than a body's and its sealed keys'", hint=GET_AGAIN)
    fields = Fields(held.metadata, name)
    digests = fields.object("digests")
    for key, tensor in (("body", body), ("sealed", sealed)):
        if tensor_digest(tensor) != digests.digest(key):
            raise SignatureError(
                f"{name}: its content is not what was signed",
                hint="it was altered in transit; ask its sender for a fresh copy",
            )
    return fields, body, sealed
