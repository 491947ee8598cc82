"""Writing results so that nothing half-written is ever seen under its name.

A result is written to a temporary neighbour, flushed to the disk and renamed; on any failure the
neighbour is removed. An existing result is refused unless the caller forces it.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ucadi import filetypes
from ucadi.errors import OutputError
from ucadi.files import writing


def refuse_existing(path: Path, *, force: bool = False) -> None:
    """Raises OutputError if nothing may be written to `path`: what takes long asks before it begins."""
    with writing(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OutputError(f"{path} is {filetypes.describe(path)}: not written", hint="choose another --output")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already", hint="choose another --output, or --force to replace it")
        if not path.parent.is_dir():
            what = "not a folder" if path.parent.exists() else "no such folder"
            raise OutputError(f"{path.parent}: {what}", hint=f"mkdir -p {path.parent}")
        # asked of the system by doing it: permissions do not say what a read-only or pseudo file system takes
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        Path(name).unlink()


def make_folder(path: Path, *, mode: int = 0o777) -> Path:
    """Makes a folder, and those above it, unless it is there; returns it. OutputError if that cannot be."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.of(path, error) from None
    return path


@contextmanager
def new_file(path: Path, *, force: bool = False, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path; what is written there becomes `path` when the block ends without an error."""
    with writing(path):
        refuse_existing(path, force=force)
        if path.is_dir():
            raise OutputError(f"{path} is a folder: not replaced by a file", hint="choose another --output")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            part.chmod(mode)
            _flush(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _flush(path.parent)


def write_file(path: Path, data: bytes, *, force: bool = False, mode: int = 0o644) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with new_file(path, force=force, mode=mode) as part:
        part.write_bytes(data)


@contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` when the block ends without an error.

    `force` replaces an existing folder, but never one that holds files this call would not have made by
    itself: the old folder is moved aside first and removed only after the new one stands.
    """
    with writing(path):
        refuse_existing(path, force=force)
        if path.is_file():
            raise OutputError(f"{path} is a file: not replaced by a folder", hint="choose another --output")
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        aside = part.with_suffix(".old")
        try:
            yield part
            part.chmod(0o755)
            if path.exists():
                _refuse_foreign(path, part)
                path.replace(aside)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)


def _refuse_foreign(old: Path, new: Path) -> None:
    """Raises OutputError if the old folder holds what the new one has nothing like, numbers in names aside."""
    made = {_unnumbered(entry.name) for entry in new.iterdir()}
    foreign = sorted(entry.name for entry in old.iterdir() if _unnumbered(entry.name) not in made)
    if foreign:
        raise OutputError(
            f"{old}: not replaced, as it also holds {', '.join(foreign[:3])}{' and more' if foreign[3:] else ''}",
            hint="move that away first, or choose another --output",
        )


def _unnumbered(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def claim_file(path: Path, data: bytes) -> bool:
    """Creates `path` with `data`, on the disk when this returns; False, and no change, if it exists already.

    Of several processes that try at once, exactly one succeeds.
    """
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(part)
        except FileExistsError:
            return False
        finally:
            part.unlink(missing_ok=True)
        _flush(path.parent)
        return True


class Unfailing(io.RawIOBase):
    """A new file for a library that cannot bear a full disk, as HDF5 cannot: its writing never fails.

    The first failure is kept, for `check` to raise, and nothing is written after it. Use it as a context.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._handle: Final = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        self._place = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raises the OSError of what could not be written, if there was any."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Writes the bytes at the file's position."""
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view) and self._error is None:
            try:
                written += os.pwrite(self._handle, view[written:], self._place + written)
            except OSError as error:
                self._error = error
        self._place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Makes the file that long, by default as long as its position is."""
        size = self._place if size is None else size
        try:
            os.ftruncate(self._handle, size)
        except OSError as error:
            self._error = self._error or error
        return size

    def readinto(self, buffer: Any) -> int:
        """Reads from the position into the buffer."""
        count = os.preadv(self._handle, [buffer], self._place)
        self._place += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the position."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._handle).st_size}
        self._place = starts[whence] + offset
        return self._place

    def tell(self) -> int:
        """The position."""
        return self._place

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            super().close()
            os.close(self._handle)


def _flush(path: Path) -> None:
    """Makes sure that a file or a folder's entries have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
