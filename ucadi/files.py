"""Files that others may have put there, and disks that are full.

Only regular files are opened, without waiting for a pipe's other end.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi.errors import FormatError, OutputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room: no disk, no quota, no longer file."""

RIGHT_PATH = "is the path right?"


@contextmanager
def opened(path: Path, hint: str = RIGHT_PATH) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading; FormatError, with the hint, for what is absent, unreadable or none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}", hint=hint) from None
    except ValueError:
        raise FormatError(f"{str(path)!r}: not the name of a file", hint=hint) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FormatError(f"{path}: not a file", hint=hint)
    with os.fdopen(handle, "rb") as file:
        yield file


def read_bytes(path: Path, most: int, hint: str = RIGHT_PATH) -> bytes:
    """A regular file's content; FormatError also where it has more than `most` bytes."""
    with opened(path, hint) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError(f"{path.name}: more than {most:,} bytes", hint=hint)
    return data


@contextmanager
def writing(path: Path, room: str = "nothing was left behind; make room and run again") -> Iterator[None]:
    """Turns a failure to write `path`, or its temporary neighbour, into an OutputError; the hint `room` is for a disk
    that is full."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(f"{path}: not written: {error.strerror}", hint=room) from error
        if error.filename is None or _is_about(Path(os.fsdecode(error.filename)), path):
            raise OutputError(f"{path}: not written: {error.strerror}", hint="choose another --output") from error
        raise


def _is_about(failed: Path, path: Path) -> bool:
    """Whether what failed is an output, its folder, or what has its name behind a dot: see `ucadi.formats.output`."""
    hidden = path.parent.joinpath(f".{path.name}.")
    return failed in (path, path.parent) or str(failed).startswith(str(hidden))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes in hex: what `sha256sum` prints, and how artefacts name each other."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
