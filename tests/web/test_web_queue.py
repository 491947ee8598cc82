"""The queue of the diagnosis page: its order, its limits, what is left of it after a crash."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ucadi.errors import FormatError
from ucadi.web.jobs import FullError, Queue
from ucadi.web.settings import MAX_ATTEMPTS, MAX_QUEUED, MAX_RECEIVING


def test_the_queue_keeps_order_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    jobs = [queue.add("").id for _ in range(3)]
    for job in reversed(jobs):
        assert queue.enqueue(job)
        assert not queue.enqueue(job)
    assert [queue.ahead(queue.find(job)) for job in jobs] == [2, 1, 0]  # type: ignore[arg-type]
    first = queue.take()
    assert first is not None
    assert (first.id, first.state, first.attempts) == (jobs[2], "running", 1)
    queue.close()
    queue = Queue(path)
    assert queue.recover() == [jobs[2]]
    taken = [queue.take() for _ in range(4)]
    assert [job and job.id for job in taken] == [*reversed(jobs), None]
    queue.finish(jobs[2])
    queue.finish(jobs[1], "broken", "mend it")
    assert [queue.find(job).state for job in jobs] == ["running", "failed", "done"]  # type: ignore[union-attr]
    queue.finish(jobs[2], "too late")
    assert queue.find(jobs[2]).error == ""  # type: ignore[union-attr]
    queue.close()


def test_a_job_that_ends_every_server_is_given_up(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.sqlite")
    job = queue.add("").id
    queue.enqueue(job)
    for _ in range(MAX_ATTEMPTS - 1):
        assert queue.take() is not None
        assert queue.recover() == [job]
    assert queue.take() is not None
    assert queue.recover() == []
    found = queue.find(job)
    assert found is not None
    assert found.state == "failed"
    assert "given up" in found.error
    queue.close()


def test_the_queue_takes_only_so_many(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.sqlite")
    for _ in range(MAX_QUEUED):
        assert queue.enqueue(queue.add("").id)
    with pytest.raises(FullError):
        queue.add("")
    queue.take()
    for _ in range(MAX_RECEIVING):
        queue.add("")
    with pytest.raises(FullError):
        queue.add("")
    queue.close()


def test_what_a_job_is_to_show_outlives_a_restart(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.sqlite")
    jobs = [queue.add("ann", "bacterial").id, queue.add("bob").id]
    queue.close()
    queue = Queue(tmp_path / "queue.sqlite")
    found = [queue.find(job) for job in jobs]
    assert [(job.owner, job.diagnosis) for job in found if job] == [("ann", "bacterial"), ("bob", "")]
    queue.close()


def test_another_file_is_no_queue(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    path.write_bytes(b"no database at all, but of some length")
    with pytest.raises(FormatError, match="not a database"):
        Queue(path)
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE jobs (id TEXT)")
    other.close()
    with pytest.raises(FormatError, match="no such column"):
        Queue(path)
