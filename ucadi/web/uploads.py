"""Files of a job, streamed to the disk as they come, within the limits. What is in them is not looked at here."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ucadi.errors import DISK_FULL
from ucadi.web.settings import IDLE_SECONDS, MAX_FILES


class Uploads:
    """Counts each job's bytes while its files arrive, several at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes: Counter[str] = Counter()

    def forget(self, job: str) -> None:
        """A job's files are all here, or gone."""
        self._bytes.pop(job, None)

    async def receive(self, request: Request, job: str, folder: Path, number: int) -> int:
        """Writes the request's body as file `number` of a job: whole and on the disk, or not at all. Its size.

        A file of that number that is here already gives way. Raises HTTPException: 400 for a number out of range,
        408 for a body that stands still, 413 for too much, 507 for a full disk.
        """
        if not 0 <= number < MAX_FILES:
            raise HTTPException(400, f"files are numbered from 0 to {MAX_FILES - 1}")
        target, part = folder / f"{number:05d}", folder / f"{number:05d}.part"
        if job not in self._bytes:  # the server was started again in between
            self._bytes[job] = sum(file.stat().st_size for file in folder.iterdir())
        if target.exists():
            self._bytes[job] -= target.stat().st_size
            target.unlink()
        self._check(job, _announced(request))
        with _refusing():
            try:
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                raise HTTPException(409, "somebody else is sending this file") from None
            try:
                with os.fdopen(handle, "wb") as file:
                    await self._write(request, job, file)
                size = part.stat().st_size
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            return size

    async def _write(self, request: Request, job: str, file: BinaryIO) -> None:
        """Writes the body and flushes it; what it has counted is taken back if it fails."""
        size = 0
        stream = request.stream()
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    piece = await anext(stream, None)
                if piece is None:
                    break
                self._check(job, len(piece))
                self._bytes[job] += len(piece)
                size += len(piece)
                file.write(piece)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        except BaseException:
            if job in self._bytes:  # else removed meanwhile
                self._bytes[job] -= size
            raise

    def _check(self, job: str, more: int) -> None:
        if job not in self._bytes:
            raise HTTPException(404, "no such job")  # removed while its file came
        if self._bytes[job] + more > self._limit:
            raise HTTPException(413, f"more than {self._limit / 1e9:g} GB")


@contextmanager
def _refusing() -> Iterator[None]:
    """What goes wrong with a body or a disk, as an answer."""
    try:
        yield
    except TimeoutError:
        raise HTTPException(408, "nothing came for too long") from None
    except ClientDisconnect:
        raise HTTPException(400, "broken off") from None
    except FileNotFoundError:
        raise HTTPException(404, "no such job") from None  # removed while its file came
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise HTTPException(507, "the server's disk is full") from None


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0
