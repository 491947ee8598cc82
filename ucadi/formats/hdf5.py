"""Untrusting access to an HDF5 file: the library that knows the format never touches one in this process.

A process of its own (`ucadi.formats.survey`) says what is in the file and where, and may crash over it. What it says
is taken for the word of a stranger: places are checked against the file, and the bytes are read, verified and inflated
here, each piece into exactly the memory that its shape asks for.

Source: HDF5 File Format Specification 3.0, IV.A.2.l (filter pipeline); H5_checksum_fletcher32 of the library.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ucadi.errors import FormatError
from ucadi.files import opened

Attribute = str | int | float

MAX_RATIO = 1100
"""More than deflate can shrink anything (1032)."""

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_CHECKSUM_BYTES = 4

DAMAGED = "it is damaged or was made by another program: make it again, or bring a copy"
"""What to do about a file that is not sound."""


MAGIC = b"\x89HDF\r\n\x1a\n"


Said = dict[str, Any]
"""What a survey says of a group."""


def survey(path: Path) -> Iterator[Said]:
    """What a process of its own tells of a file: its groups, outer before inner."""
    command = [sys.executable, "-P", "-m", "ucadi.formats.survey", str(path.absolute())]
    # threads of a library that calculates nothing here, and plug-ins that a file could ask for
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, stdin=quiet, stdout=pipe, stderr=quiet, env=environment) as process:
        assert process.stdout is not None
        yield from understood(process.stdout, path.name)


def understood(lines: Iterable[bytes], name: str) -> Iterator[Said]:
    """The groups that a survey's lines tell of; FormatError, naming the file, if it did not come to its end."""
    last: Said = {}
    for line in lines:
        last = _parse(line)
        if "group" in last:
            yield last
    if "end" not in last:
        why = last.get("error", "the HDF5 library fails on it")
        raise FormatError(f"{name}: not sound HDF5: {why}", hint=DAMAGED)


def _parse(line: bytes) -> Said:
    try:
        said = json.loads(line)
    except ValueError:  # cut off by a crash
        return {}
    return said if isinstance(said, dict) else {}


@contextmanager
def opened_file(path: Path, survey: Callable[[Path], Iterator[Said]] = survey) -> Iterator[HDF5Group]:
    """The root of an HDF5 file, whose arrays can be read until the block ends; FormatError for what is none."""
    with opened(path) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise FormatError(f"{path.name}: not HDF5", hint="is it a dataset of ucadi preprocess?")
        groups: dict[str, HDF5Group] = {}
        source = HDF5File(path.name, file.fileno())
        for said in survey(path):
            try:
                group = HDF5Group(source, str(said["group"]), dict(said["attributes"]), dict(said["arrays"]))
            except (KeyError, TypeError, ValueError):
                raise source.error("/", "the survey makes no sense") from None
            parent, _, name = group.path[:-1].rpartition("/")
            if groups:
                groups[f"{parent}/"].groups[name] = group
            groups[group.path] = group
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise source.error("/", "was replaced while it was opened")
        yield groups["/"]


@dataclass(frozen=True)
class HDF5File:
    """An open file: its name, for messages, and its descriptor."""

    name: str
    descriptor: int

    def error(self, where: str, what: str) -> FormatError:
        """That something at `where` in the file is not as it should be."""
        return FormatError(f"{self.name}: {where.rstrip('/') or '/'}: {what}"[:500], hint=DAMAGED)


@dataclass(frozen=True)
class HDF5Group:
    """A group: its attributes, the groups in it by name, and its arrays as the survey describes them."""

    source: HDF5File
    path: str
    _attributes: dict[str, Any]
    _arrays: dict[str, Any]
    groups: dict[str, HDF5Group] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of all that is in it, whatever it is."""
        return [*self.groups, *self._arrays]

    def group(self, name: str) -> HDF5Group:
        """The group of that name in this one."""
        if name not in self.groups:
            raise self.error(f"{name} is missing, a link or no group")
        return self.groups[name]

    def attributes(self) -> dict[str, Attribute]:
        """All attributes, each a text or a number."""
        return {
            name: value if isinstance(value, str) else self.number(name)
            for name, value in sorted(self._attributes.items())
        }

    def text(self, name: str, default: str | None = None) -> str:
        """A text attribute; the default where it is missing."""
        value = self._attributes.get(name, default)
        if not isinstance(value, str):
            raise self.error(f"{name} is " + ("not a text" if name in self._attributes else "missing"))
        return value

    def number(self, name: str) -> int | float:
        """A numeric attribute."""
        value = self._attributes.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{name} is " + ("not a number" if name in self._attributes else "missing"))
        return value

    def integer(self, name: str) -> int:
        """A numeric attribute that is a whole number."""
        number = self.number(name)
        if not isinstance(number, int):
            raise self.error(f"{name} is not a whole number")
        return number

    def array(self, name: str, dtype: npt.DTypeLike, dimensions: int) -> Array:
        """The array of that name and type; nothing of it is read yet."""
        said = self._arrays.get(name, "is missing or no array")
        if isinstance(said, str):
            raise self.error(f"{name} {said}")
        try:
            shape = tuple(map(_size, said["shape"]))
            found = str(said["type"])
            filters = tuple(map(_size, said["filters"]))
            pieces = np.array(said["pieces"], np.int64).reshape(-1, 3)
            sliced = bool(said["sliced"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self.error(f"{name} is described in a way that makes no sense") from None
        if len(shape) != dimensions or found != described(np.dtype(dtype)):
            raise self.error(
                f"{name} holds {found} in {len(shape)} dimensions, not {described(np.dtype(dtype))} in {dimensions}"
            )
        return Array(self, name, np.dtype(dtype), shape, filters, pieces, sliced)

    def error(self, what: str) -> FormatError:
        """That something in this group is not as it should be."""
        return self.source.error(self.path, what)


def described(dtype: np.dtype[Any]) -> str:
    """A type in words that are equal where the bytes mean the same."""
    if dtype.names is None:
        return dtype.str
    return f"{dtype.itemsize}: " + ", ".join(f"{name} {dtype[name].str}" for name in dtype.names)


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ValueError(value)
    return value


class Array:
    """An array in the file. `sliced`: each part [i] lies by itself, filtered; else all lies in one piece."""

    def __init__(
        self,
        group: HDF5Group,
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        filters: tuple[int, ...],
        pieces: npt.NDArray[np.int64],
        sliced: bool,
    ) -> None:
        self.shape: Final = shape
        self.sliced: Final = sliced
        self._group: Final = group
        self._name: Final = name
        self._dtype: Final = dtype
        self._filters: Final = filters
        self._pieces: Final = pieces
        self._check()

    def _check(self) -> None:
        """Raises FormatError unless all its bytes are in the file, once, and can be as many as its shape says."""
        count = self.shape[0] if self.sliced else int(math.prod(self.shape) > 0)
        offsets, sizes = self._pieces[:, 0], self._pieces[:, 1]
        ends = offsets + sizes
        order = np.argsort(offsets)
        end = os.fstat(self._group.source.descriptor).st_size
        if len(self._pieces) != count or not set(self._filters) <= {_DEFLATE, _SHUFFLE, _FLETCHER32}:
            raise self._error("is truncated, or not stored as ucadi does")
        if count and (
            offsets.min() < 0 or sizes.min() < 0 or ends.max() > end or (ends[order][:-1] > offsets[order][1:]).any()
        ):
            raise self._error("lies beyond the file's end, or twice in one place")
        if math.prod(self.shape) * self._dtype.itemsize > max(1, int(sizes.sum())) * MAX_RATIO:
            raise self._error(f"claims {self.shape}, which its {sizes.sum()} bytes cannot hold")

    def whole(self) -> npt.NDArray[Any]:
        """All of it, as an array of one's own."""
        if not self.sliced:
            return self._piece(0, self.shape).copy() if len(self._pieces) else np.empty(self.shape, self._dtype)
        found = np.empty(self.shape, self._dtype)
        for index in range(len(found)):
            found[index] = self.part(index)
        return found

    def part(self, index: int) -> npt.NDArray[Any]:
        """One part of a sliced array, read-only; no other is read."""
        return self._piece(index, self.shape[1:])

    def _piece(self, number: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        offset, size, skipped = map(int, self._pieces[number])
        expected = math.prod(shape) * self._dtype.itemsize
        try:
            data = os.pread(self._group.source.descriptor, size, offset)
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from None
        for place, kind in reversed(list(enumerate(self._filters))):
            if skipped >> place & 1:  # as where deflating gained nothing
                continue
            try:
                data = self._undo(kind, data, expected)
            except (ValueError, zlib.error):
                raise self._error("is damaged") from None
        if len(data) != expected:
            raise self._error("is damaged")
        return np.frombuffer(data, self._dtype).reshape(shape)

    def _undo(self, kind: int, data: bytes, expected: int) -> bytes:
        if kind == _DEFLATE:
            inflater = zlib.decompressobj()
            inflated = inflater.decompress(data, expected + 1)
            return inflated if inflater.eof else b""
        if kind == _SHUFFLE:  # all first bytes, then all second ones
            return np.frombuffer(data, np.uint8).reshape(self._dtype.itemsize, -1).T.tobytes()
        content, stored = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        return content if len(stored) == _CHECKSUM_BYTES and _agrees(content, stored) else b""

    def _error(self, what: str) -> FormatError:
        return self._group.error(f"{self._name} {what}")


def _agrees(content: bytes, stored: bytes) -> bool:
    """Whether a Fletcher-32 checksum, as HDF5 stores it, is that of the content: two sums modulo 65535, in which 0 and
    65535 are the same."""
    words = np.frombuffer(content + bytes(len(content) % 2), ">u2").astype(np.uint64)
    first, second = words.sum(), (words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum()
    value = int.from_bytes(stored, "little")
    return (int(first) - (value & 0xFFFF)) % 65535 == 0 and (int(second) - (value >> 16)) % 65535 == 0
