"""What a file is, by its first bytes: so that a file in the wrong place is called by its name.

Nothing is opened with a reader of its format, nothing is believed, and at most a few thousand bytes are looked at: a
hostile file can at worst make a message name something else.
"""

from __future__ import annotations

import gzip
import re
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path

from ucadi.errors import FormatError, SignatureError, UcadiError
from ucadi.kinds import Format

_LOOK = (1 << 20) + 8
"""Bytes looked at: the metadata of a container, a document's format, an HDF5 file's first attributes."""

HDF5 = b"\x89HDF\r\n\x1a\n"
_FORMAT = re.compile(rb'"format\\?":\\?"(ucadi-[a-z-]+)\\?"')
"""As a document says it, and as a container does, whose metadata are JSON within JSON."""


def describe(path: Path) -> str:
    """What lies at `path`, in words that fit after "is": `a dataset`, `a PyTorch file`, `a folder`, `not there`."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return "a folder"
        if not stat.S_ISREG(mode):
            return "a pipe, a socket or a device"
        with path.open("rb") as file:
            start = file.read(_LOOK)
    except FileNotFoundError:
        return "not there"
    except OSError as error:
        return f"not readable ({error.strerror})"
    return _of_bytes(start)


def is_ours(what: str) -> bool:
    """Whether what `describe` says is a file of ucadi."""
    return any(what == one.words for one in Format)


def name_of(kind: str) -> str:
    """A format in words; a format of another program, or of a later ucadi, as it is called."""
    known = Format.of(kind)
    return known.words if known else f"a {kind} file"


def any_of(kinds: Sequence[str]) -> str:
    """Some formats in words: `an update or a histogram`."""
    *others, last = map(name_of, kinds)
    return f"{', '.join(others)} or {last}" if others else last


def wrong(path: Path, *wanted: str) -> UcadiError | None:
    """The error for a file at `path` that is none of the `wanted` formats; None if it looks like one of them."""
    what = describe(path)
    return None if what in map(name_of, wanted) else not_wanted(path.name, what, *wanted)


def not_wanted(name: str, what: str, *wanted: str) -> UcadiError:
    """The error for the file `name`, which is `what`, where one of the formats `wanted` is, or any of ucadi's.

    For a secret key in place of a public file it is a SignatureError: that key is not secret any more.
    """
    if not wanted:
        return FormatError(f"{name} is {what}, not a file of ucadi", hint="is it the right file?")
    if what == Format.KEY.words and not {Format.CARD.id, Format.ROSTER.id}.isdisjoint(wanted):
        return SignatureError(
            f"{name} is a secret key, not {any_of(wanted)}",
            hint="if this key has left its machine, make a new one with ucadi keygen; only the card is sent",
        )
    hint = "; ".join(_how_made(known) for kind in wanted if (known := Format.of(kind))) or None
    return FormatError(f"{name} is {what}, not {any_of(wanted)}", hint=hint)


def _how_made(known: Format) -> str:
    verb = "is" if known.words.startswith(("a ", "an ")) else "are"
    return f"{known.words} {verb} made by ucadi {known.made_by}"


def unreadable(path: Path, error: OSError, *wanted: str, words: str | None = None) -> FormatError:
    """The error for an input that the system does not open; `wanted`, or `words`, says what should be there."""
    if path.is_dir():
        return not_regular(path, *wanted, words=words)
    there = _in_words(wanted, words)
    return FormatError(f"{path}: {error.strerror}", hint=f"{there} is wanted here: is the path right?")


def not_regular(path: Path, *wanted: str, words: str | None = None) -> FormatError:
    """The error for a folder, a pipe or a device where a file is wanted."""
    hint = "name the file in it" if path.is_dir() else "is the path right?"
    return FormatError(f"{path} is {describe(path)}, not {_in_words(wanted, words)}", hint=hint)


def _in_words(wanted: Sequence[str], words: str | None) -> str:
    return words or (any_of(wanted) if wanted else "a file of ucadi")


def no_folder(path: Path, wanted: str) -> str:
    """The message for a path where `wanted`, a folder, should be and is not."""
    return f"{path} is {describe(path)}, not {wanted}" if path.exists() else f"{path}: no such folder"


def not_a_file(path: Path) -> str:
    """The message for a path where a file should be and is not."""
    return f"{path} is {describe(path)}, not a file" if path.exists() else f"{path}: no such file"


def not_written(data: bytes) -> str | None:
    """What a file with that content is, if it is none that a person may have written; else None."""
    what = _of_bytes(data[:_LOOK])
    return None if what in _WRITTEN else what


_EMPTY, _TEXT, _TABLE, _JSON = "an empty file", "text", "a table (CSV)", "JSON of another program"
_WRITTEN = (_EMPTY, _TEXT, _TABLE, _JSON)
"""What a person may have written."""

_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"-----BEGIN ", "a PEM file"),
    (b"\x80", "a pickle"),
)


def _of_bytes(start: bytes) -> str:
    if not start:
        return _EMPTY
    if start.startswith(HDF5):
        return Format.DATASET.words if Format.DATASET.id.encode() in start else "an HDF5 file of another program"
    if start.startswith(b"PK\3\4"):
        return "a PyTorch file" if b"/data.pkl" in start or b"/byteorder" in start else "a zip archive"
    if start[128:132] == b"DICM":
        return "a DICOM file"
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] == b"n+2\0":
        return "a NIfTI file"
    if start.startswith(b"\x1f\x8b"):
        return _of_gzip(start)
    if start[257:262] == b"ustar":
        return Format.COURIER.words if start.startswith(b"manifest.json\0") else "a tar archive"
    if (named := _of_ucadi(start)) is not None:
        return named
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return what
    return _of_text(start)


def _of_ucadi(start: bytes) -> str | None:
    """A container or a document of ucadi, or at least a safetensors file; None for anything else."""
    is_container = int.from_bytes(start[:8], "little") <= 1 << 20 and start[8:9] == b"{"
    if not is_container and not start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return None
    found = _FORMAT.findall(start)
    if found:  # a sum holds the documents of its uploads before its own
        return name_of(found[-1].decode())
    return "a safetensors file of another program" if is_container else _JSON


def _of_gzip(start: bytes) -> str:
    try:
        inner = zlib.decompressobj(wbits=31).decompress(start, 4096)
    except (zlib.error, gzip.BadGzipFile):
        return "a gzip file"
    return "a NIfTI file" if inner[344:348] in (b"n+1\0", b"ni1\0") else "a gzip file"


def _of_text(start: bytes) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16"
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # a character that the look cut in two
            return "of an unknown kind"
        text = start[: error.start].decode("utf-8-sig", "replace")
    if any(character < " " and character not in "\t\r\n\f" for character in text):
        return "of an unknown kind"
    header = text.splitlines()[0] if text.strip() else ""
    return _TABLE if "," in header or ";" in header else _TEXT
