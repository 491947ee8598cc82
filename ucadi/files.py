"""Files that others may have put there, results that are whole or not there at all, and disks that are full.

Only regular files are opened, without waiting for a pipe's other end; what is not opened is called by its name. A
result is written to a temporary neighbour and flushed to the disk before it gets its name; on any failure the neighbour
is removed. An existing result is refused unless the caller forces it, and of several that come at once one wins.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi import filetypes
from ucadi.errors import DISK_FULL, FormatError, OutputError, SignatureError

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
        data = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)  # memory is taken for what is asked for
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


def check_secret(path: Path, what: str) -> None:
    """Raises SignatureError if others than its owner can reach a file with a secret, which may then be known.

    `what` it is, in words without an article. FormatError for what is no readable file.
    """
    with opened(path, words=f"a {what}") as file:
        mode = os.fstat(file.fileno()).st_mode
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SignatureError(f"{path}: others than its owner have access to this {what}", hint=f"chmod 600 {path}")


def read_secret(path: Path, what: str, wanted: str, *, most: int = 1 << 16) -> str:
    """The text of a file with a secret, such as a token, without the space around it; errors as `check_secret` has
    them and, for anything that is no text, or is a file of ucadi, FormatError saying that `wanted` should be here."""
    check_secret(path, what)
    return read_text(path, wanted, most=most).strip()


def allow_open_files(count: int) -> None:
    """Raises the soft limit of open files to `count`, or as far as the system allows."""
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
    """Whether what failed is an output, its folder, or a temporary neighbour, which has its name behind a dot."""
    hidden = path.parent.joinpath(f".{path.name}.")
    return failed in (path, path.parent) or str(failed).startswith(str(hidden))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes in hex: what `sha256sum` prints, and how artefacts name each other."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_existing(path: Path, *, force: bool = False) -> None:
    """Raises OutputError if nothing may be written to `path`: what takes long asks before it begins."""
    with writing(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OutputError(f"{path} is {filetypes.describe(path)}: not written", hint="choose another --output")
        if os.path.lexists(path) and not force:
            raise _taken(path)
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


_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What the system says where a file cannot have a second name: FAT, exFAT, some drives on a network."""


def settle(part: Path, path: Path) -> None:
    """Gives a finished file its name; FileExistsError, and nothing is replaced, if anything has that name.

    Of several processes that try at once, exactly one succeeds. `part` may be left, and is for the caller to remove.
    """
    try:
        os.link(part, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with locked(path.parent):  # no other process of ucadi on this machine comes between these two steps
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            part.rename(path)


def _settle_or_refuse(part: Path, path: Path) -> None:
    try:
        settle(part, path)
    except FileExistsError:
        raise _taken(path) from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a folder, so that others who ask for it wait; the system lets go of it however the process ends."""
    try:
        import fcntl
    except ModuleNotFoundError:  # not on Windows, where a file is never renamed to a name that is taken
        yield
        return
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path}: exists already", hint="choose another --output, or --force to replace it")


@contextmanager
def new_file(path: Path, *, force: bool = False, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path; what is written there becomes `path` when the block ends without an error.

    Without `force`, a file that appeared there meanwhile stays, and the error is the same as if it had been there.
    """
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
            flush(part)
            if force:
                part.replace(path)
            else:
                _settle_or_refuse(part, path)
        finally:
            part.unlink(missing_ok=True)
        flush(path.parent)


def write_file(path: Path, data: bytes, *, force: bool = False, mode: int = 0o644) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with new_file(path, force=force, mode=mode) as part:
        part.write_bytes(data)


def copy_file(source: Path, path: Path, *, force: bool = False, mode: int = 0o644) -> None:
    """Copies a file to `path`, whole or not at all; what may be read there is for `mode` to say."""
    with new_file(path, force=force, mode=mode) as part:
        shutil.copyfile(source, part)


@contextmanager
def new_folder(path: Path, *, force: bool = False, mode: int = 0o755) -> Iterator[Path]:
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
            part.chmod(mode)
            if force and path.exists():
                _refuse_foreign(path, part)
                path.replace(aside)
            part.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise _taken(path) from None
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
            settle(part, path)
        except FileExistsError:
            return False
        finally:
            part.unlink(missing_ok=True)
        flush(path.parent)
        return True


def flush(path: Path) -> None:
    """Makes sure that a file or a folder's entries have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
