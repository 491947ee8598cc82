"""Runs the queue's jobs, one at a time, each in a worker of its own, and removes what is over its time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from ucadi.events import Events
from ucadi.web.jobs import Job, Queue
from ucadi.web.settings import Settings

_SWEEP_SECONDS = 30.0
_PAUSE_SECONDS = 1.0

_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS", "VIRTUAL_ENV")
"""What a worker inherits."""


class Runner:
    """The one who takes jobs. `lock` is the descriptor that marks the work folder as in use; a worker holds it as well,
    so that no other server begins before the worker of a killed one has ended."""

    def __init__(self, queue: Queue, settings: Settings, tell: Events, lock: int) -> None:
        self._queue = queue
        self._settings = settings
        self._tell = tell
        self._lock = lock
        self._bell = asyncio.Event()
        self._running: tuple[str, asyncio.subprocess.Process] | None = None
        self._progress: dict[str, Any] = {}

    def ring(self) -> None:
        """There is a new job."""
        self._bell.set()

    def progress(self, job: str) -> Mapping[str, Any]:
        """How far a running job is: step, of how many, and its name."""
        return self._progress if self._running and self._running[0] == job else {}

    async def run(self) -> None:
        """Works until cancelled; the job under way is then ended, and will be done again by the next server."""
        sweeping = asyncio.create_task(self._again_and_again(self._sweep))
        try:
            await self._again_and_again(self._turn)
        finally:
            sweeping.cancel()

    async def remove(self, job: str) -> None:
        """Ends a job if it runs, forgets it, and removes all its files."""
        self._queue.remove(job)
        if self._running and self._running[0] == job:
            _end(self._running[1])
            await self._running[1].wait()
        await asyncio.to_thread(shutil.rmtree, self._settings.folder(job), ignore_errors=True)
        self._tell("removed", {"job": short(job)})

    async def _again_and_again(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await turn()
            except Exception as error:  # the queue's disk is full, another program holds it: that passes
                self._tell("bug", {"kind": type(error).__name__})
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _turn(self) -> None:
        """Does the next job, or waits for one. First what a turn that broke, or a server that was killed, left."""
        self._bell.clear()
        for again in self._queue.recover():
            self._tell("again", {"job": short(again)})
        job = self._queue.take()
        if job is None:
            await self._bell.wait()
            return
        try:
            await self._do(job)
        except OSError as error:  # its folder is gone, or the disk is full: the next one may fare better
            self._queue.finish(job.id, f"the server could not begin: {error.strerror}")
            self._tell("failed", {"job": short(job.id)})

    async def _do(self, job: Job) -> None:
        self._tell("running", {"job": short(job.id), "attempt": job.attempts})
        folder, scratch = self._settings.folder(job.id), self._settings.folder(job.id) / "scratch"
        for old in (scratch, self._settings.results(job.id)):  # of an attempt that was broken off
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
        if not folder.is_dir():
            self._queue.finish(job.id, "its files are gone")
            return
        scratch.mkdir()
        try:
            error, hint = await self._work(job)
        except asyncio.CancelledError:
            self._queue.give_back(job.id)
            raise
        finally:
            self._running, self._progress = None, {}
        known = self._queue.find(job.id) is not None  # else removed meanwhile
        self._queue.finish(job.id, error, hint)  # before its files go: without them it could not be done again
        await self._clear(job.id)
        if known:
            self._tell("failed" if error else "done", {"job": short(job.id)})

    async def _clear(self, job: str) -> None:
        """Removes what a job that is over needs no more."""
        for used in (self._settings.folder(job) / "scratch", self._settings.uploads(job)):
            await asyncio.to_thread(shutil.rmtree, used, ignore_errors=True)

    async def _work(self, job: Job) -> tuple[str, str]:
        """Has a worker do the job: the error and the hint, both empty if it went well."""
        settings, scratch = self._settings, self._settings.folder(job.id) / "scratch"
        # -P: a file in the working folder is never taken for a module
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "ucadi.web.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # decoders quote what they cannot read
            cwd=scratch,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"TMPDIR": str(scratch)},
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        self._running = (job.id, process)
        if self._queue.find(job.id) is None:  # removed while its worker began
            _end(process)
        order = {
            "uploads": str(settings.uploads(job.id)),
            "results": str(settings.results(job.id)),
            "model": str(settings.model),
            "calibration": str(settings.calibration) if settings.calibration else None,
            "memory_bytes": settings.memory_bytes,
            "seconds": settings.seconds,
            "min_slices": settings.min_slices,
            "dicom": settings.dicom,
            "diagnosis": job.diagnosis,
        }
        last: dict[str, Any] = {}
        try:
            # not on the command line, which every user of the machine can see
            process.stdin.write(json.dumps(order).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(settings.seconds):
                async for line in process.stdout:
                    last = self._progress = dict(json.loads(line))
                await process.wait()
        except TimeoutError:
            return f"not done within {settings.seconds / 60:g} minutes", "upload one series, not a whole archive"
        except (ConnectionError, TypeError, ValueError):
            pass  # it died, or was overrun: judged by what it said last
        finally:
            _end(process)
            await process.wait()
        if last.get("done") is True:
            return "", ""
        return (
            str(last.get("error") or "the analysis died: out of memory, or a decoder crashed"),
            str(last.get("hint") or ""),
        )

    async def _sweep(self) -> None:
        """Removes what is over its time, what nobody knows, and what a kill left of jobs that are over; then rests."""
        for expired in self._queue.expired(self._settings.keep_seconds):
            await self.remove(expired)
        with suppress(OSError):
            for folder in (self._settings.work / "jobs").iterdir():
                job = self._queue.find(folder.name)
                if job is None:
                    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                elif job.state in ("done", "failed"):
                    await self._clear(job.id)
        await asyncio.sleep(_SWEEP_SECONDS)


def short(job: str) -> str:
    """A job in the log: enough to tell it from others, too little to ask for it."""
    return job[:8]


def _end(process: asyncio.subprocess.Process) -> None:
    """kill -9 to a worker and whatever it has started, which is all in one process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
