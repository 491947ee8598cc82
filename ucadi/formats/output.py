"""Writing results so that nothing half-written is ever seen under its name.

A result is written to a temporary neighbour, flushed to the disk and renamed; on any failure the
neighbour is removed. An existing result is refused unless the caller forces it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi.errors import OutputError


def refuse_existing(path: Path, *, force: bool = False) -> None:
    """Raises OutputError if nothing may be written to `path`: what takes long asks before it begins."""
    if path.exists() and not force:
        raise OutputError(f"{path}: exists already", hint="choose another --output, or --force to replace it")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder", hint=f"mkdir -p {path.parent}")


@contextmanager
def new_file(path: Path, *, force: bool = False, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path; what is written there becomes `path` when the block ends without an error."""
    refuse_existing(path, force=force)
    with _disk_errors(path):
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
    refuse_existing(path, force=force)
    with _disk_errors(path):
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        aside = part.with_suffix(".old")
        try:
            yield part
            part.chmod(0o755)
            if path.exists():
                path.replace(aside)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)


def claim_file(path: Path, data: bytes) -> bool:
    """Creates `path` with `data`, on the disk when this returns; False, and no change, if it exists already.

    Of several processes that try at once, exactly one succeeds.
    """
    with _disk_errors(path):
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


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutputError(
                f"{path}: not written: {error.strerror}", hint="nothing was left behind; make room and run again"
            ) from error
        about_output = error.filename is not None and Path(error.filename).is_relative_to(path.parent)
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and about_output:
            raise OutputError(f"{path}: not written: {error.strerror}", hint="choose another --output") from error
        raise


def _flush(path: Path) -> None:
    """Makes sure that a file or a folder's entries have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
