"""A fuzzer for readers of files: a mutator that knows the structure of formats, and what counts as a fault.

A reader may give what it read or raise a UcadiError. Anything else is a fault: another exception, a warning, a crash,
more than two seconds.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import signal
import struct
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucadi.errors import UcadiError
from ucadi.formats.container import DTYPES, canonical_json
from ucadi.formats.signed import sign
from ucadi.identity import SecretKeys

SECONDS = 2.0
"""Longest that a reader may take over one small file."""

MAX_BYTES = 1 << 20
"""Of a mutant; larger ones say nothing new."""

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    1 << 16,
    1 << 31,
    1 << 32,
    (1 << 47),
    (1 << 48) - 1,
    1 << 53,
    1 << 63,
    1 << 200,
    0.5,
    -0.0,
)
TEXTS = ("", "a", "a" * 300, "\x1b[2J", "\ud800", "../x", "é", "0" * 64, "f" * 64, "U8", "F32", "site-a", "-1", "nan")
BYTES = (b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80", b"\x7f", b"\n", b'"', b"[", b"{", b"\1\0\0\0")


@dataclass(frozen=True)
class Target:
    """A reader: what it is called, files that it reads, how it is told to read one, and the key of an insider who may
    sign what he has changed."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    keys: SecretKeys | None = None


@dataclass
class Outcome:
    """What became of the inputs of a target."""

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


class HangError(BaseException):
    """A reader took too long; no `except Exception` may swallow it."""


def fuzz(target: Target, numbers: range, scratch: Path) -> Outcome:
    """Reads the mutants of these numbers; each follows from its number. A fault ends it: the mutant is in `scratch`."""
    outcome = Outcome()
    path = scratch / f"{target.name}.mutant"
    path.touch(0o600)  # a key that others can read is not read
    for number in numbers:
        path.write_bytes(mutant(target, random.Random(f"{target.name}:{number}")))
        try_one(target, path, outcome)
    path.unlink(missing_ok=True)
    return outcome


def try_one(target: Target, path: Path, outcome: Outcome) -> None:
    """Reads one file; all but a UcadiError is a fault."""
    began = time.perf_counter()
    outcome.inputs += 1
    try:
        with _alarm():
            target.read(path)
    except UcadiError as error:
        outcome.refused[type(error).__name__] += 1
    else:
        outcome.accepted += 1
    outcome.slowest = max(outcome.slowest, time.perf_counter() - began)


@contextmanager
def _alarm() -> Iterator[None]:
    """Ends what takes longer than SECONDS of processor time: this machine may be busy with other things."""

    def ring(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# --- mutants ------------------------------------------------------------------------------------------------


def mutant(target: Target, rng: random.Random) -> bytes:
    """A changed file: its bytes, or its structure, then signed again perhaps."""
    data = rng.choice(target.seeds)
    if rng.random() < 0.65:
        with suppress(Exception):  # a mutant of a mutant may have no structure left to change
            changed = _restructured(data, target, rng)
            if changed is not None:
                return changed[:MAX_BYTES]
    return edited(data, target.seeds, rng)[:MAX_BYTES]


def edited(data: bytes, others: tuple[bytes, ...], rng: random.Random) -> bytes:
    """The bytes with a few edits."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        start = rng.randrange(len(made) + 1)
        end = min(len(made), start + rng.choice((0, 1, 2, 4, 8, 64, 512)))
        match rng.randrange(7):
            case 0 if start < len(made):
                made[start] ^= 1 << rng.randrange(8)
            case 1:
                made[start:end] = rng.choice(BYTES)
            case 2:
                made[start:end] = bytes(end - start)
            case 3:
                del made[start:end]
            case 4:
                made[start:start] = made[start:end] * rng.choice((1, 2, 100))
            case 5:
                other = rng.choice(others)
                place = rng.randrange(len(other) + 1)
                made[start:end] = other[place : place + end - start]
            case _:
                made[start:end] = rng.randbytes(end - start)
    return bytes(made[: rng.randrange(len(made) + 1)] if rng.random() < 0.05 else made)


def _restructured(data: bytes, target: Target, rng: random.Random) -> bytes | None:
    """A container or a document with changed JSON, whole again; None for what is neither."""
    if data[:1] == b"{":
        document = changed_json(json.loads(data), rng)
        return canonical_json(_signed(document, target, rng)).encode() + b"\n"
    if data[257:262] == b"ustar":
        return _parcel(data, target, rng)
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= len(data) - 8 or data[8:9] != b"{":
        return None
    header = json.loads(data[8 : 8 + length])
    tensors = {
        name: (entry["dtype"], entry["shape"], data[8 + length + begin : 8 + length + end])
        for name, entry in header.items()
        if name != "__metadata__"
        for begin, end in [entry["data_offsets"]]
    }
    metadata = json.loads(header["__metadata__"]["ucadi"])
    match rng.randrange(3):
        case 0:
            metadata = changed_json(metadata, rng)
        case 1:
            tensors = _changed_tensors(tensors, rng)
        case _:
            header = changed_json(_header(tensors, metadata), rng)
            return _container(header, b"".join(raw for _, _, raw in tensors.values()))
    if isinstance(metadata, dict) and isinstance(metadata.get("digests"), dict) and rng.random() < 0.8:
        metadata["digests"] = {name: hashlib.sha256(raw).hexdigest() for name, (_, _, raw) in tensors.items()}
    metadata = _signed(metadata, target, rng)
    return _container(_header(tensors, metadata), b"".join(tensors[name][2] for name in sorted(tensors)))


Tensors = dict[str, tuple[str, list[int], bytes]]


def _changed_tensors(tensors: Tensors, rng: random.Random) -> Tensors:
    """Other types and shapes, with as many bytes as they ask for where that is not too many."""
    made = dict(tensors)
    name = rng.choice(sorted(made)) if made else "a"
    dtype, shape, raw = made.get(name, ("U8", [0], b""))
    match rng.randrange(7):
        case 0:
            dtype = rng.choice(sorted(DTYPES))
        case 1:
            shape = [rng.choice((0, 0, 1, 2, 3, 8, 1 << 31, 1 << 47, (1 << 48) - 1)) for _ in range(rng.randrange(9))]
        case 2:
            shape = []
        case 3:
            shape = [*shape, 1]
        case 4:
            shape = shape[1:] if rng.random() < 0.5 else [size + rng.choice((-1, 1)) for size in shape]
        case 5:
            raw = edited(raw, (raw,), rng)
            shape = [len(raw) // DTYPES[dtype].itemsize] if rng.random() < 0.3 else shape
        case _:
            del made[name]
            name = rng.choice((*TEXTS[1:], "body", "sum", "counts"))
    wanted = DTYPES[dtype].itemsize
    for size in shape:
        wanted *= size
    if 0 <= wanted <= 1 << 16:
        raw = (raw * (wanted // max(1, len(raw)) + 1) + bytes(wanted))[:wanted]
    made[name] = dtype, shape, raw
    return made


def _header(tensors: Tensors, metadata: Any) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"ucadi": canonical_json(metadata)}}
    begin = 0
    for name in sorted(tensors):
        dtype, shape, raw = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + len(raw)]}
        begin += len(raw)
    return header


def _container(header: Any, data: bytes) -> bytes:
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _parcel(data: bytes, target: Target, rng: random.Random) -> bytes:
    """A courier's file with other contents, names or words in its manifest, and digests and sizes that fit them."""
    file = io.BytesIO(data)
    with tarfile.open(fileobj=file) as tar:
        entries = [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
    manifest = json.loads(entries[0][1])
    place = rng.randrange(1, len(entries))
    name, content = entries[place]
    match rng.randrange(4):
        case 0:
            content = _restructured(content, target, rng) or edited(content, target.seeds, rng)
        case 1:
            name = rng.choice(
                (*TEXTS[1:3], "/etc/x", *(other for other, _ in entries[1:]), name.replace("site-a", "site-z"))
            )
        case 2:
            entries[place:] = rng.sample(entries[place:], len(entries) - place)
            name, content = entries[place]
        case _:
            manifest = changed_json(manifest, rng)
    entries[place] = name, content[:MAX_BYTES]
    if isinstance(manifest, dict) and rng.random() < 0.8:
        manifest["files"] = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in entries[1:]
        ]
    entries[0] = "manifest.json", canonical_json(manifest).encode() + b"\n"
    made = b""
    for name, content in entries:
        header = tarfile.TarInfo(name.encode("utf-8", "replace").decode()[:90])
        header.size, header.mode = len(content), 0o644
        made += header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
    return made + bytes(2 * tarfile.BLOCKSIZE)


def _signed(document: Any, target: Target, rng: random.Random) -> Any:
    """Signed by the insider, as an insider would; some are left with the signature that no longer fits."""
    if target.keys is None or not isinstance(document, dict) or rng.random() < 0.1:
        return document
    return sign({key: value for key, value in document.items() if key != "signature"}, target.keys)


def changed_json(value: Any, rng: random.Random) -> Any:
    """A value with one to three nodes changed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed_node(value, list(_paths(value)), rng)
    return value


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if len(path) > 12:  # deeper is what the mutator itself has made
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:50]):
            yield from _paths(inner, (*path, index))


def _changed_node(value: Any, paths: list[tuple[Any, ...]], rng: random.Random) -> Any:
    path = rng.choice(paths)
    if not path:
        return value if rng.random() < 0.9 else _other(value, rng)
    value = json.loads(json.dumps(value))
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    last = path[-1]
    match rng.randrange(8):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder[last]
        case 2 if isinstance(holder, list):
            holder.insert(last, holder[last])
        case 3:
            donor = value
            for step in rng.choice(paths):
                if (isinstance(donor, dict) and step in donor) or (
                    isinstance(donor, list) and step in range(len(donor))
                ):
                    donor = donor[step]
            holder[last] = json.loads(json.dumps(donor))
        case _:
            holder[last] = _other(holder[last], rng)
    return value


def _other(value: Any, rng: random.Random) -> Any:
    match value:
        case str() if rng.random() < 0.5 and value:
            place = rng.randrange(len(value))
            return value[:place] + rng.choice("0f\n\x00 aZ") + value[place + 1 :]
        case int() if rng.random() < 0.5:
            return value + rng.choice((-1, 1, 1 << 8, -(1 << 8)))
    match rng.randrange(9):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return [value]
        case 2:
            return {"a": value}
        case 3:
            return rng.choice(([], {}, [[]], [{}], {"": ""}))
        case 4:
            return _nested(rng.choice((3, 30, 31, 32, 33, 300, 900)), rng)
        case 5:
            return [value] * rng.choice((0, 2, 40))
        case 6:
            return rng.choice(TEXTS)
        case _:
            return rng.choice(NUMBERS)


def _nested(depth: int, rng: random.Random) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def run_all(targets: Mapping[str, Target], numbers: range, scratch: Path) -> dict[str, Outcome]:
    """All targets, one after another."""
    return {name: fuzz(target, numbers, scratch) for name, target in targets.items()}
