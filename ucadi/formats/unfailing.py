"""A file whose writing cannot fail, for a library that cannot bear it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Final


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
