"""The container of everything that sites exchange: safetensors with one metadata entry of canonical JSON.

A file is an eight-byte little-endian length, a JSON header of that length, and the tensors' bytes one
after another. The header names each tensor's dtype, shape and place; its `__metadata__` holds exactly one
entry, `ucadi`, whose text is canonical JSON (sorted keys, no spaces, ASCII). One entry, because the
reference implementation writes several in random order. The same content always gives the same bytes.

Reading is strict, and checks before it allocates: nothing but what `write` writes is accepted, so that
two readers can never understand one file differently. Tensors are memory-mapped, not copied.

Source: the safetensors format, https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ucadi import filetypes
from ucadi.errors import FormatError
from ucadi.files import file_digest as file_digest
from ucadi.files import new_file, opened
from ucadi.kinds import PRIVATE_MODE, Format

Metadata = dict[str, Any]

Digests = Mapping[str, str]
"""SHA-256 of each tensor's bytes in hex, by the tensor's name."""

MAX_HEADER = 1 << 20
"""Longest header accepted, in bytes: room for a thousand contributions, none for an attack by size."""

MAX_TENSORS = 10_000

MAX_NAME = 200
"""Characters of a tensor's name, or of a format's."""

MAX_DEPTH = 32
"""Objects and lists within one another in JSON: three times what any format has, and far from any stack's end."""

MAX_EXTENT = 1 << 48
"""Bytes of a tensor, where a dimension of none counts as one: numpy multiplies the others too."""

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U64": np.dtype("<u8"),
}

METADATA_KEY = "ucadi"

GET_AGAIN = "the file was altered in transit or written by another program; ask its sender for a fresh copy"
"""What to do about a file that is not as ucadi writes it."""


@dataclass(frozen=True)
class Container:
    """What a file holds: its tensors by name (read-only views of the file) and its metadata."""

    tensors: Mapping[str, npt.NDArray[Any]]
    metadata: Metadata


@dataclass(frozen=True)
class Stream:
    """A tensor that is made while it is written, so that it need not fit in memory: blocks in order."""

    dtype: str
    shape: tuple[int, ...]
    blocks: Iterable[npt.NDArray[Any]]


def canonical_json(value: Any) -> str:
    """`value` as JSON in the one form that is signed and digested: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def parse_canonical_json(text: str | bytes, name: str) -> Any:
    """The value of canonical JSON; FormatError, naming `name`, for anything else, also for JSON in another form."""
    try:
        value = json.loads(text)
        exact = canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: not JSON: {error}", hint=GET_AGAIN) from None
    if _depth(value) > MAX_DEPTH:
        raise FormatError(f"{name}: JSON of more than {MAX_DEPTH} levels", hint=GET_AGAIN)
    if exact != (text if isinstance(text, str) else text.decode("utf-8", "replace")):
        raise FormatError(f"{name}: JSON, but not in canonical form", hint="it was edited or made by another program")
    return value


def _depth(value: Any) -> int:
    """How many lists and objects lie within one another; counted without a stack."""
    depth, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)]:
        depth += 1
    return depth


def _inner(outer: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def tensor_digest(tensor: npt.NDArray[Any]) -> str:
    """SHA-256 of a tensor's bytes in hex."""
    return hashlib.sha256(np.ascontiguousarray(tensor).data).hexdigest()


def write(
    path: Path,
    tensors: Mapping[str, npt.NDArray[Any] | Stream],
    metadata: Metadata | Callable[[Digests], Metadata],
    *,
    force: bool = False,
) -> None:
    """Writes tensors and metadata to `path`, whole or not at all. Tensors lie in name order, without gaps. Who may
    read it follows from its format.

    `metadata` may be a function of the tensors' digests, for a signature that covers tensors which are made
    while they are written. It is called once before with digests of zeros, and must give as long a header.
    """
    describe = metadata if callable(metadata) else lambda _: metadata
    expected = describe(dict.fromkeys(tensors, "0" * 64))
    header = _header(tensors, expected)
    with new_file(path, force=force, mode=mode_of(expected)) as part, part.open("wb") as file:
        file.write(header)
        digests = {name: _write_tensor(file, tensors[name]) for name in sorted(tensors)}
        final = _header(tensors, describe(digests))
        if len(final) != len(header):
            raise ValueError("metadata changed its length with the digests")
        file.seek(0)
        file.write(final)


def _write_tensor(file: BinaryIO, tensor: npt.NDArray[Any] | Stream) -> str:
    """Writes one tensor and returns its digest."""
    blocks, dtype = (tensor.blocks, tensor.dtype) if isinstance(tensor, Stream) else ([tensor], _dtype_name(tensor))
    digest = hashlib.sha256()
    for block in blocks:
        data = np.ascontiguousarray(block, dtype=DTYPES[dtype]).data
        file.write(data)
        digest.update(data)
    return digest.hexdigest()


def read(path: Path, *expected: str) -> Container:
    """Reads a container, and checks that it is of a known version and of one of the `expected` formats, or of any.

    Raises FormatError for a file that is not exactly what `write` makes.
    """
    name = path.name
    with opened(path, *expected) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise filetypes.wrong(path, *expected) or FormatError(f"{name}: truncated", hint=GET_AGAIN)
        text = file.read(length)
        entries, metadata = _parse_header(text, name)
        tensors = _map_tensors(file, entries, name, offset=8 + length, size=size)
    check_format(metadata, name, *expected)
    return Container(tensors, metadata)


_NOT_OURS = "it is not of this network: make initial weights with ucadi init"


def check_format(metadata: Metadata, name: str, *expected: str) -> None:
    """Raises FormatError unless the metadata names an expected format, or any, in a version that is read here."""
    found = metadata.get("format")
    if not isinstance(found, str) or not found.isprintable() or len(found) > MAX_NAME:
        raise FormatError(f"{name}: does not say what it is", hint=GET_AGAIN)
    if expected and found not in expected:
        raise filetypes.not_wanted(name, filetypes.name_of(found), *expected)
    check_version(metadata.get("version"), name, found)


def mode_of(metadata: Metadata) -> int:
    """The permissions of a file with these metadata; of an unknown format it is its owner's alone."""
    known = Format.of(str(metadata.get("format")))
    return known.mode if known else PRIVATE_MODE


def check_version(version: Any, name: str, found: str) -> None:
    """Raises FormatError unless this program reads that version of the format `found`; all that it does not know begin
    with version 1."""
    known = Format.of(found)
    versions = known.versions if known else (1,)
    if type(version) is not int or version not in versions:
        readable = " and ".join(map(str, versions))
        raise FormatError(
            f"{name}: version {version!r:.40} of {found}; this program reads version {readable}",
            hint="use the same release of ucadi at every site",
        )


def _dtype_name(tensor: npt.NDArray[Any]) -> str:
    for name, dtype in DTYPES.items():
        if tensor.dtype == dtype:
            return name
    raise TypeError(f"a tensor of {tensor.dtype} has no place in the container")


def _header(tensors: Mapping[str, npt.NDArray[Any] | Stream], metadata: Metadata) -> bytes:
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: canonical_json(metadata)}}
    start = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        dtype = tensor.dtype if isinstance(tensor, Stream) else _dtype_name(tensor)
        end = start + math.prod(tensor.shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = canonical_json(header).encode("ascii")
    text += b" " * (-len(text) % 8)  # tensors begin on a multiple of eight bytes
    if len(text) > MAX_HEADER:
        raise FormatError(f"header of {len(text)} bytes; at most {MAX_HEADER} can be read back")
    return struct.pack("<Q", len(text)) + text


def _parse_header(text: bytes, name: str) -> tuple[dict[str, Any], Metadata]:
    stripped = text.rstrip(b" ")
    if len(text) - len(stripped) >= 8 or len(text) % 8:
        raise FormatError(f"{name}: header with wrong padding", hint=GET_AGAIN)
    foreign = FormatError(f"{name} is a safetensors file of another program", hint=_NOT_OURS)
    if stripped.startswith(b'{"') and f'"{METADATA_KEY}"'.encode() not in stripped:
        raise foreign  # other programs' headers need not be canonical
    header = parse_canonical_json(stripped, f"{name}: header")
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise foreign
    described = header.pop("__metadata__")
    if set(described) != {METADATA_KEY} or not isinstance(described[METADATA_KEY], str):
        raise foreign
    metadata = parse_canonical_json(described[METADATA_KEY], f"{name}: metadata")
    if not isinstance(metadata, dict):
        raise FormatError(f"{name}: metadata is not an object", hint=GET_AGAIN)
    if len(header) > MAX_TENSORS:
        raise FormatError(f"{name}: {len(header)} tensors; at most {MAX_TENSORS} are read", hint=GET_AGAIN)
    return header, metadata


def _map_tensors(
    file: BinaryIO, entries: dict[str, Any], whose: str, offset: int, size: int
) -> dict[str, npt.NDArray[Any]]:
    tensors: dict[str, npt.NDArray[Any]] = {}
    end_of_last = 0
    data = _map(file, whose, offset, size - offset)
    for name, dtype, shape, start, end in _entries(entries, whose):
        if start != end_of_last or end - start != math.prod(shape) * dtype.itemsize or end > size - offset:
            raise FormatError(f"{whose}: tensor {name} does not lie where the header says", hint=GET_AGAIN)
        tensors[name] = data[start:end].view(dtype).reshape(shape)
        end_of_last = end
    if end_of_last != size - offset:
        raise FormatError(f"{whose}: {size - offset} bytes of tensors, the header says {end_of_last}", hint=GET_AGAIN)
    return tensors


def _map(file: BinaryIO, whose: str, offset: int, length: int) -> npt.NDArray[np.uint8]:
    """The rest of a file from an offset; read only, and from the disk only what is looked at."""
    if not length:
        return np.empty(0, np.uint8)
    try:
        return np.asarray(np.memmap(file, mode="r", dtype=np.uint8, offset=offset, shape=(length,)))
    except OSError as error:
        raise FormatError(
            f"{whose}: cannot be mapped: {error.strerror}",
            hint="raise the limit of open files (ulimit -n), or of memory",
        ) from None


def _entries(entries: dict[str, Any], file: str) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...], int, int]]:
    """The header's entries in name order, each checked for its form."""

    def is_size(value: Any) -> bool:
        return type(value) is int and 0 <= value < 1 << 48

    for name in sorted(entries):
        if not name.isprintable() or len(name) > MAX_NAME:
            raise FormatError(f"{file}: a tensor's name is not printable, or too long", hint=GET_AGAIN)
        match entries[name]:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end], **rest} if (
                not rest
                and dtype in DTYPES
                and len(shape) <= 8
                and all(map(is_size, shape))
                and is_size(start)
                and is_size(end)
                and math.prod(n or 1 for n in shape) * DTYPES[dtype].itemsize <= MAX_EXTENT
            ):
                yield name, DTYPES[dtype], tuple(shape), start, end
            case _:
                raise FormatError(
                    f"{file}: tensor {name} is described in a way that ucadi does not write", hint=GET_AGAIN
                )
