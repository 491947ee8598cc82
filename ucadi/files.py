"""Opening files that others may have put there: regular files only, and without waiting for a pipe's other end."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi.errors import FormatError

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


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes in hex: what `sha256sum` prints, and how artefacts name each other."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
