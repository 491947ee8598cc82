"""Writing results so that nothing half-written is ever seen under its name.

A result is written to a temporary neighbour, flushed to the disk and renamed; on any failure the
neighbour is removed. An existing result is refused unless the caller forces it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi import filetypes
from ucadi.errors import OutputError


def refuse_existing(path: Path, *, force: bool = False) -> None:
    """Raises OutputError if nothing may be written to `path`: what takes long asks before it begins."""
    with _disk_errors(path):
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
    refuse_existing(path, force=force)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: not replaced by a file", hint="choose another --output")
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
    if path.is_file():
        raise OutputError(f"{path} is a file: not replaced by a folder", hint="choose another --output")
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
    """Whatever the system says of the output, or of its neighbours, is an OutputError; inputs are not its business."""
    try:
        yield
    except OSError as error:
        names = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
        if error.errno is None or (names and not any(_belongs(name, path) for name in names)):
            raise
        raise OutputError.of(path, error, hint="choose another --output") from error


def _belongs(name: Path, path: Path) -> bool:
    """Whether a name is that of an output, of its folder, or of a temporary neighbour or what is in it."""
    name, folder = name.absolute(), path.parent.absolute()
    if name in (path.absolute(), folder):
        return True
    return name.is_relative_to(folder) and name.relative_to(folder).parts[0].startswith(f".{path.name}.")


def _flush(path: Path) -> None:
    """Makes sure that a file or a folder's entries have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
