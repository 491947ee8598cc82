"""Many scans read at once, in processes of their own, in order and with bounded memory.

A scan that crashes its process (a decoder's fault, memory) is refused like any other; the rest goes on.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from ucadi.ct.observation import observe
from ucadi.ct.reading.refusals import Reason, RefusedError
from ucadi.ct.reading.scan import KnownScan, Scan, find_source, read_scan
from ucadi.errors import OutputError


@dataclass(frozen=True)
class ReadJob:
    """What `read_scan` is asked for. known: digests of scans that need not be read, only found."""

    path: Path
    size: int | None
    min_slices: int
    series: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()


Outcome = Scan | KnownScan | RefusedError


def read_scans(jobs: Sequence[ReadJob], workers: int) -> Iterator[Outcome]:
    """Reads every scan and yields the outcomes in the order of the jobs. At most `2 * workers` are under way."""
    if min(workers, len(jobs)) <= 1:
        yield from map(read_one, jobs)
        return
    waiting = deque(jobs)
    running: deque[tuple[ReadJob, Future[Outcome]]] = deque()
    pool = _pool(workers)
    try:
        while waiting or running:
            try:
                while waiting and len(running) < 2 * workers:
                    running.append((waiting[0], pool.submit(read_one, waiting[0])))
                    waiting.popleft()
                outcome = running[0][1].result()
                running.popleft()
            except BrokenProcessPool:
                # Any of those under way may be the culprit. The first is tried by itself, the others again.
                pool.shutdown(wait=False, cancel_futures=True)
                waiting.extendleft(job for job, _ in reversed(running))
                running.clear()
                outcome = _read_alone(waiting.popleft())
                pool = _pool(workers)
            yield outcome
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read_one(job: ReadJob) -> Outcome:
    """One scan with what is observed in it, or why it is refused, whatever is wrong with it.

    Raises OutputError where it is the disk that is full: that is no fault of the scan.
    """
    try:
        if job.known:
            source = find_source(job.path, min_slices=job.min_slices, series=job.series)
            if source is not None and source.digest in job.known:
                return source
        scan = read_scan(job.path, size=job.size, min_slices=job.min_slices, series=job.series)
        facts, flags = observe(scan.volume, scan.tags)
        return replace(scan, tags=scan.tags | facts, flags=tuple(sorted({*scan.flags, *flags})))
    except RefusedError as refusal:
        return refusal
    except OutputError:
        raise
    except MemoryError:
        return RefusedError(Reason.CRASHED, "out of memory")
    except Exception as error:  # one bad scan must not end a run of hours; the report says where it was
        return RefusedError(Reason.UNREADABLE, f"{type(error).__name__} {_place(error)}")


def _place(error: Exception) -> str:
    """Where in the program an error arose. What it says is left out, as it may quote the scan."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"in {Path(frame.filename).name}:{frame.lineno}"


def _read_alone(job: ReadJob) -> Outcome:
    """One scan in a process that may die."""
    with _pool(1) as pool:
        try:
            return pool.submit(read_one, job).result()
        except BrokenProcessPool:
            return RefusedError(Reason.CRASHED)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    """In each worker: the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
