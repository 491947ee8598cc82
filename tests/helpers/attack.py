"""What tests of attacks share: an insider's tools, and what it means to be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation, forget

from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.verify import verify
from ucadi.errors import UcadiError
from ucadi.formats import container
from ucadi.formats import keys as key_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats.container import canonical_json
from ucadi.formats.signed import sign

Document = dict[str, Any]


def common(federation: Federation) -> dict[str, Path]:
    return {"plan": federation.plan, "roster": federation.roster}


def add(federation: Federation, output: Path) -> Path:
    forget(federation.key("coordinator"))  # by itself, it sums one set a round
    aggregate(federation.ciphertexts, **common(federation), key=federation.key("coordinator"), output=output)
    return output


def everything(federation: Federation, output: Path) -> list[Callable[[], object]]:
    """Every command that reads a round's plan and roster, as somebody would run it."""
    files = common(federation)
    key = federation.key("site-a")
    return [
        lambda: encrypt(federation.update("site-a"), **files, key=key, output=output),
        lambda: add(federation, output),
        lambda: aggregate(federation.updates, **files, output=output),
        lambda: decrypt(federation.folder / "sum.enc", **files, key=key, output=output),
        lambda: apply(federation.base, federation.folder / "opened", **files, output=output),
        lambda: verify([federation.folder / "sum.enc", *federation.ciphertexts], **files),
    ]


def is_refused(attempt: Callable[[], object], folder: Path) -> UcadiError:
    """Runs what must fail: the error says what is wrong and what to do, and no file is made."""
    before = sorted(folder.iterdir())
    with pytest.raises(UcadiError) as caught:
        attempt()
    error = caught.value
    assert error.message
    assert error.message.isprintable()
    assert error.hint, error.message
    assert 2 <= error.exit_code <= 11
    assert sorted(folder.iterdir()) == before
    return error


def resign(path: Path, change: Callable[[Document], object], signer: Path) -> None:
    """An insider alters a document and signs it anew."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(canonical_json(signed_anew(document, signer)) + "\n")


def signed_anew(document: Document, signer: Path) -> Document:
    """A document with the signature that fits it, and a receipt with the mark that does."""
    keys = key_format.read_key(signer)
    if "mark" in document and document["format"] == receipt_format.FORMAT:
        short = {name: document[name] for name in ("federation", "round", "plan", "aggregate", "previous")}
        document = {**document, "mark": sign({"mark": receipt_format.MARK_VERSION, **short}, keys)}
    return sign({key: value for key, value in document.items() if key != "signature"}, keys)


def replace_ciphertext(
    path: Path, signer: Path, change: Callable[[dict[str, np.ndarray]], object], **fields: object
) -> None:
    """An insider alters the tensors or the metadata of its ciphertext, and signs it anew."""
    held = container.read(path)
    tensors = {name: tensor.copy() for name, tensor in held.tensors.items()}
    change(tensors)
    digests = {name: container.tensor_digest(tensor) for name, tensor in tensors.items()}
    metadata = sign({**held.metadata, "digests": digests, **fields}, key_format.read_key(signer))
    container.write(path, tensors, metadata, force=True)
