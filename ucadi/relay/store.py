"""A directory of immutable files: listed with size and digest, received in pieces, published whole or not at all.

The relay's exchange directory and a site's are the same thing, and receive by the same code. What arrives
lies in `.incoming` under its name, size and digest until it is complete, so that it can be continued after
any crash; it appears under its name only when its SHA-256 is right and it is on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ucadi.errors import DISK_FULL
from ucadi.files import flush
from ucadi.kinds import is_folder
from ucadi.relay.protocol import Code, RefusalError, is_name

INCOMING = ".incoming"
ABANDONED_SECONDS = 7 * 24 * 3600.0
"""Age at which an unfinished file is removed."""

_BLOCK = 1 << 20
_EARLY = 16 << 20
"""Bytes after which writing to the disk begins."""


@dataclass(frozen=True)
class Entry:
    """A file: its name in the directory, its size in bytes and its SHA-256 in hex."""

    name: str
    size: int
    digest: str


class Store:
    """The files below `root` whose names the layout of an exchange directory allows; others are not seen.

    Symbolic links are never followed. Safe to use from several threads, and beside other processes.
    """

    def __init__(self, root: Path) -> None:
        self.root: Final = root
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}

    def names(self, prefix: str = "") -> list[str]:
        """The names at or below `prefix`, sorted. A prefix is whole steps of a path: `rounds/0003`, not `rounds/00`."""
        found: list[str] = []
        self._walk(prefix, found)
        return sorted(found)

    def find(self, name: str) -> Entry | None:
        """The file of this name, or None. Reads it whole if its digest is not known yet."""
        try:
            handle = self.open(name)
        except RefusalError:
            return None
        try:
            status = os.fstat(handle)
            same = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = self._digests.get(name)
            if known is None or known[0] != same:
                known = self._digests[name] = (same, digest_of(handle).hexdigest())
            return Entry(name, status.st_size, known[1])
        finally:
            os.close(handle)

    def open(self, name: str) -> int:
        """A descriptor to read the file of this name from; a RefusalError (missing) if there is none."""
        missing = RefusalError(Code.MISSING, f"there is no {name}")
        if not is_name(name):
            raise missing
        try:
            handle = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                raise missing from None
            raise
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise missing
        return handle

    def receive(self, name: str, size: int, digest: str) -> Incoming | None:
        """Begins or continues to receive a file; None if it is here already.

        Raises a RefusalError if another file has the name, somebody else is sending this one, or the disk has no room.
        """
        if not is_name(name):
            raise RefusalError(Code.MALFORMED, "not a name of the exchange directory's layout")
        here = self.find(name)
        if here is not None:
            if here.digest != digest:
                raise RefusalError(Code.EXISTS, f"{name} is here already, with other content")
            return None
        folder = self.root / INCOMING
        folder.mkdir(exist_ok=True)
        label = hashlib.sha256(name.encode()).hexdigest()[:16]
        incoming = Incoming(self, name, size, digest, folder / f"{digest}-{size}-{label}.part")
        free = os.statvfs(folder)
        if free.f_bavail * free.f_frsize < size - incoming.received:
            incoming.discard()
            raise RefusalError(Code.DISK_FULL, f"no room for {size:,} bytes")
        return incoming

    def sweep(self, age: float = ABANDONED_SECONDS) -> None:
        """Removes unfinished files that nobody has continued for `age` seconds, and `.incoming` if it is empty."""
        folder = self.root / INCOMING
        for part in folder.glob("*.part"):
            with suppress(FileNotFoundError):  # it may just have been published
                if part.stat().st_mtime < time.time() - age:
                    part.unlink()
        with suppress(OSError):
            folder.rmdir()

    def remember(self, name: str, handle: int, digest: str) -> None:
        """Notes the digest of a file that was just published, so that it need not be read again."""
        status = os.fstat(handle)
        self._digests[name] = ((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns), digest)

    def _walk(self, path: str, found: list[str]) -> None:
        if is_name(path):
            with suppress(OSError):
                if stat.S_ISREG((self.root / path).lstat().st_mode):
                    found.append(path)
            return
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / path) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if is_name(below):
                    if entry.is_file(follow_symlinks=False):
                        found.append(below)
                elif is_folder(below) and entry.is_dir(follow_symlinks=False):
                    self._walk(below, found)


class Incoming:
    """A file on its way in: `received` bytes are here, in order from the first."""

    def __init__(self, store: Store, name: str, size: int, digest: str, part: Path) -> None:
        self.name: Final = name
        self.size: Final = size
        self._store = store
        self._wanted_digest = digest
        self._part = part
        self._handle = _open_alone(part)
        if os.fstat(self._handle).st_size > size:
            os.ftruncate(self._handle, 0)
        self._sha256 = digest_of(self._handle)
        self.received = os.fstat(self._handle).st_size
        self._begun_to_write = self.received
        os.lseek(self._handle, self.received, os.SEEK_SET)

    def append(self, data: bytes | memoryview) -> None:
        """Adds the next bytes. On a full disk a RefusalError, and what was here is removed to make room for others."""
        view = memoryview(data)
        if self.received + len(view) > self.size:
            raise RefusalError(Code.MALFORMED, f"{self.name}: more bytes than announced")
        try:
            while view:
                written = os.write(self._handle, view)
                self._sha256.update(view[:written])
                self.received += written
                view = view[written:]
            self._write_early()
        except OSError as error:
            raise self._disk_error(error) from None

    def _write_early(self) -> None:
        """Has the system begin to write what has come, without waiting, so that little is left to flush at the end."""
        if self.received - self._begun_to_write >= _EARLY and hasattr(os, "posix_fadvise"):
            length = self.received - self._begun_to_write
            os.posix_fadvise(self._handle, self._begun_to_write, length, os.POSIX_FADV_DONTNEED)
            self._begun_to_write = self.received

    def publish(self) -> None:
        """Makes the complete file appear under its name, for good.

        A RefusalError if its digest is not what was announced (it is removed then) or another file has the name.
        """
        if self._sha256.hexdigest() != self._wanted_digest or self.received != self.size:
            self.discard()
            raise RefusalError(Code.DIGEST, f"{self.name}: the bytes that arrived have another SHA-256 than announced")
        target = self._store.root / self.name
        try:
            os.fsync(self._handle)
            _make_folder(target.parent)
            try:
                os.link(self._part, target, follow_symlinks=False)
            except FileExistsError:
                here = self._store.find(self.name)
                if here is None or here.digest != self._wanted_digest:
                    raise RefusalError(Code.EXISTS, f"{self.name} is here already, with other content") from None
            else:
                flush(target.parent)
        except OSError as error:
            raise self._disk_error(error) from None
        finally:
            self._part.unlink(missing_ok=True)
            self._store_digest_and_close()

    def suspend(self) -> None:
        """Keeps what is here, for another time."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        """Removes what is here."""
        self._part.unlink(missing_ok=True)
        self.suspend()

    def _store_digest_and_close(self) -> None:
        if self._handle >= 0:
            # after the unlink, since a change of the number of links changes the file's ctime
            self._store.remember(self.name, self._handle, self._wanted_digest)
            self.suspend()

    def _disk_error(self, error: OSError) -> Exception:
        if error.errno not in DISK_FULL:
            return error
        self.discard()
        return RefusalError(Code.DISK_FULL, f"{self.name}: {error.strerror}")


def _open_alone(part: Path) -> int:
    """Opens or creates a file of incoming bytes that no other process, thread or transfer has open."""
    while True:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise RefusalError(Code.BUSY, "somebody else is sending this file") from None
        # whoever held it may have published or removed it between our open and our lock
        with suppress(FileNotFoundError):
            if part.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def digest_of(handle: int) -> hashlib._Hash:
    sha256, offset = hashlib.sha256(), 0
    while block := os.pread(handle, _BLOCK, offset):
        sha256.update(block)
        offset += len(block)
    return sha256


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
            flush(folder.parent)
