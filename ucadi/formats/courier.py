"""A courier's file: files of an exchange directory in one, to be carried by hand.

It is an uncompressed tar, so that people can look inside with tools that they have, and it begins with
`manifest.json`: name, size and SHA-256 of all that follows, in order of name. The same files always give the
same bytes. Reading takes no tar apart: the manifest says which bytes `write` would have made around each
file, and exactly those must be there. So there is no place for a link, a device or a second meaning.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ucadi import files, filetypes
from ucadi.errors import CapacityError, FormatError, OutputError
from ucadi.files import new_file
from ucadi.formats.container import GET_AGAIN, canonical_json, check_format, file_digest, parse_canonical_json
from ucadi.formats.signed import Fields
from ucadi.kinds import Format, Place
from ucadi.progress import track

FORMAT = Format.COURIER.id
MANIFEST = "manifest.json"

MAX_MANIFEST = 1 << 24
"""Bytes: some hundred thousand files."""
MAX_FILE = (1 << 33) - 1
"""Bytes of one file: the largest that a plain tar header can say."""

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_SIZE_FIELD = slice(124, 136)
_PIECE = 1 << 20


@dataclass(frozen=True)
class Item:
    """One file: its name in the exchange directory, its size in bytes and its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


class Parcel:
    """A courier's file that is open for reading: whom it is for, and its items, in order of name.

    Sizes, names and every header have been checked; contents are checked as they are read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        document, begin = self._manifest()
        fields = Fields(document, f"{name}: {MANIFEST}")
        self.receiver: Final = fields.text("for")
        self.items: Final = tuple(_item(item, name) for item in fields.objects("files"))
        names = [item.name for item in self.items]
        if names != sorted(set(names)):
            raise FormatError(f"{name}: a file twice, or not in order of name", hint=GET_AGAIN)
        self._starts = dict(zip(names, self._check_headers(begin), strict=True))

    def pieces(self, item: Item) -> Iterator[bytes]:
        """The item's content, in pieces; FormatError after the last one if they were not what the manifest says."""
        self._file.seek(self._starts[item.name])
        digest, left = hashlib.sha256(), item.size
        while left:
            piece = self._read(min(left, _PIECE))
            digest.update(piece)
            left -= len(piece)
            yield piece
        if digest.hexdigest() != item.sha256 or any(self._read(-item.size % _BLOCK)):
            raise FormatError(f"{self._name}: the content of {item.name} is not what was packed", hint=GET_AGAIN)

    def copy(self, item: Item, path: Path) -> None:
        """Writes the item's content to an existing temporary file."""
        with path.open("wb") as file:
            for piece in self.pieces(item):
                file.write(piece)

    def _manifest(self) -> tuple[dict[str, object], int]:
        """The manifest, and where what follows it begins."""
        head = self._read(_BLOCK)
        field = head[_SIZE_FIELD]
        if not re.fullmatch(rb"[0-7]{11}\0", field) or head != _header(MANIFEST, size := int(field[:-1], 8)):
            raise FormatError(f"{self._name}: not a courier's file: it does not begin with {MANIFEST}", hint=GET_AGAIN)
        if size > MAX_MANIFEST:
            raise FormatError(f"{self._name}: a manifest of {size} bytes; at most {MAX_MANIFEST}", hint=GET_AGAIN)
        text, padding = self._read(size), self._read(-size % _BLOCK)
        if not text.endswith(b"\n") or any(padding):
            raise FormatError(f"{self._name}: {MANIFEST} is not as ucadi writes it", hint=GET_AGAIN)
        document = parse_canonical_json(text[:-1], f"{self._name}: {MANIFEST}")
        if not isinstance(document, dict) or set(document) != {"format", "version", "for", "files"}:
            raise FormatError(f"{self._name}: {MANIFEST} is not as ucadi writes it", hint=GET_AGAIN)
        check_format(document, f"{self._name}: {MANIFEST}", FORMAT)
        return document, _BLOCK + _padded(size)

    def _check_headers(self, begin: int) -> list[int]:
        """Where each item's content begins; FormatError unless the file is as long, and its headers are, as written."""
        end = begin + sum(_BLOCK + _padded(item.size) for item in self.items)
        size = os.fstat(self._file.fileno()).st_size
        if size != end + len(_END):
            raise FormatError(
                f"{self._name}: {size} bytes, its manifest says {end + len(_END)}: truncated, or not of ucadi",
                hint=GET_AGAIN,
            )
        starts = []
        for item in self.items:
            self._file.seek(begin)
            if self._read(_BLOCK) != _header(item.name, item.size):
                raise FormatError(
                    f"{self._name}: where {item.name} should be is something else: another name, a link or a device",
                    hint=GET_AGAIN,
                )
            starts.append(begin + _BLOCK)
            begin += _BLOCK + _padded(item.size)
        self._file.seek(end)
        if self._read(len(_END)) != _END:
            raise FormatError(f"{self._name}: something follows its last file", hint=GET_AGAIN)
        return starts

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise FormatError(f"{self._name}: truncated", hint=GET_AGAIN)
        return data


@contextmanager
def opened(path: Path) -> Iterator[Parcel]:
    """Opens a courier's file; FormatError if it is anything but what `write` makes."""
    with files.opened(path, FORMAT) as file:
        if (other := filetypes.wrong(path, FORMAT)) is not None:
            raise other
        yield Parcel(file, path.name)


def write(path: Path, root: Path, names: Sequence[str], receiver: str, *, force: bool = False) -> tuple[Item, ...]:
    """Writes the files of these names below `root` into one for `receiver`; returns the items."""
    items = tuple(_describe(root, name) for name in track(sorted(names), "reading"))
    document = {**Format.COURIER.head, "for": receiver, "files": [asdict(item) for item in items]}
    manifest = canonical_json(document).encode("ascii") + b"\n"
    if len(manifest) > MAX_MANIFEST:
        raise CapacityError(f"{len(items)} files are too many for one courier's file")
    with new_file(path, force=force) as part, part.open("wb") as file:
        file.write(_header(MANIFEST, len(manifest)) + manifest + bytes(-len(manifest) % _BLOCK))
        for item in track(items, "packing"):
            file.write(_header(item.name, item.size))
            _copy(root / item.name, item, file)
            file.write(bytes(-item.size % _BLOCK))
        file.write(_END)
    return items


def _describe(root: Path, name: str) -> Item:
    path = root / name
    size = path.stat().st_size
    if size > MAX_FILE:
        raise CapacityError(f"{path}: {size} bytes; a courier's file holds files of at most {MAX_FILE}")
    return Item(name, size, file_digest(path))


def _copy(path: Path, item: Item, target: BinaryIO) -> None:
    digest, size = hashlib.sha256(), 0
    with files.opened(path) as source:
        while piece := source.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            target.write(piece)
    if (size, digest.hexdigest()) != (item.size, item.sha256):
        raise OutputError(f"{path}: changed while it was packed", hint="what is in an exchange directory must stay")


def _item(fields: Fields, name: str) -> Item:
    item = Item(fields.text("name"), fields.number("size", most=MAX_FILE), fields.digest("sha256"))
    if set(fields.values) != {"name", "size", "sha256"}:
        raise FormatError(f"{name}: {MANIFEST} is not as ucadi writes it", hint=GET_AGAIN)
    if Place.parse(item.name) is None:
        raise FormatError(f"{name}: {item.name[:100]!r} is no file of an exchange directory", hint=GET_AGAIN)
    return item


def _header(name: str, size: int) -> bytes:
    """The block before a file's content: of nobody, from the beginning of time, readable by all."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _padded(size: int) -> int:
    return size + -size % _BLOCK
