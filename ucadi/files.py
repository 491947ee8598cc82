"""Files that others may have put there, and disks that are full.

Only regular files are opened, without waiting for a pipe's other end; what is not opened is called by its name.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi import filetypes
from ucadi.errors import DISK_FULL, FormatError, OutputError

MAX_TEXT = 64 << 20
"""Bytes of a text that people write, such as a table: a million lines."""


@contextmanager
def opened(path: Path, *wanted: str, words: str | None = None) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading; FormatError for what is absent, unreadable or none.

    The formats `wanted`, or `words`, say what should be there.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise filetypes.unreadable(path, error, *wanted, words=words) from None
    except ValueError:
        raise FormatError(f"{str(path)!r}: not the name of a file", hint="is the path right?") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise filetypes.not_regular(path, *wanted, words=words)
    with os.fdopen(handle, "rb") as file:
        yield file


def read_bytes(path: Path, most: int, *, words: str | None = None) -> bytes:
    """A regular file's content; FormatError also where it has more than `most` bytes. `words` say what it should be."""
    with opened(path, words=words) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError(f"{path.name}: more than {most:,} bytes", hint=f"{words or 'a file of ucadi'} is wanted here")
    return data


def read_text(path: Path, wanted: str, *, most: int = MAX_TEXT) -> str:
    """The text of a file that people write, UTF-8 with or without a mark; `wanted` says in words what it should be.

    Raises FormatError, saying what the file is, for anything else, also for more than `most` bytes.
    """
    data = read_bytes(path, most, words=wanted)
    if (what := filetypes.not_written(data)) is not None:
        raise FormatError(f"{path.name} is {what}, not {wanted}", hint="is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FormatError(f"{path.name}: not UTF-8 text, as {wanted} must be", hint="save it as UTF-8") from None


@contextmanager
def writing(path: Path, room: str = "nothing was left behind; make room and run again") -> Iterator[None]:
    """Turns a failure to write `path`, or its temporary neighbour, into an OutputError; the hint `room` is for a disk
    that is full."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise OutputError(f"{path}: not written: {error.strerror}", hint=room) from error
        names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        if error.errno is None or (names and not any(_is_about(name, path) for name in names)):
            raise
        raise OutputError.of(path, error, hint="choose another --output") from error


def _is_about(failed: Path, path: Path) -> bool:
    """Whether what failed is an output, its folder, or what has its name behind a dot: see `ucadi.formats.output`."""
    hidden = path.parent.joinpath(f".{path.name}.")
    return failed in (path, path.parent) or str(failed).startswith(str(hidden))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes in hex: what `sha256sum` prints, and how artefacts name each other."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
