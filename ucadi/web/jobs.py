"""The durable queue of the diagnosis page: one SQLite file, changed by one process.

A job is `receiving` its files, `queued`, `running`, then `done` or `failed`. What was running when the server
died is queued again, before all others.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from dataclasses import dataclass, fields
from pathlib import Path

from ucadi.errors import FormatError
from ucadi.web.settings import MAX_ATTEMPTS, MAX_QUEUED, MAX_RECEIVING, RECEIVING_SECONDS

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    diagnosis TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('receiving', 'queued', 'running', 'done', 'failed')),
    place INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    changed REAL NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    hint TEXT NOT NULL DEFAULT ''
) STRICT
"""


class FullError(Exception):
    """The queue takes no more for now."""


@dataclass(frozen=True)
class Job:
    """A job as the queue knows it.

    diagnosis: what the heatmap is asked for, empty for the most probable one. changed: when its state last changed, in
    seconds since 1970.
    """

    id: str
    owner: str
    diagnosis: str
    state: str
    place: int
    attempts: int
    changed: float
    error: str
    hint: str


_COLUMNS = ", ".join(field.name for field in fields(Job))


class Queue:
    """The jobs in a file. Every change is on the disk when its method returns.

    Raises FormatError for a file that is no such queue.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise FormatError(
                f"{path}: no queue that can be used ({error})", hint="choose another --work folder"
            ) from None

    def _open(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        self._connection.execute(_SCHEMA)
        self._connection.execute(f"SELECT {_COLUMNS} FROM jobs LIMIT 0")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def recover(self) -> list[str]:
        """Queues again what is said to run while nothing does; what was broken off several times has failed."""
        self._connection.execute(
            "UPDATE jobs SET state = 'failed', changed = ?, error = ? WHERE state = 'running' AND attempts >= ?",
            (time.time(), f"given up: it was broken off {MAX_ATTEMPTS} times", MAX_ATTEMPTS),
        )
        rows = self._connection.execute(
            "UPDATE jobs SET state = 'queued', changed = ? WHERE state = 'running' RETURNING id", (time.time(),)
        )
        return [row[0] for row in rows.fetchall()]

    def add(self, owner: str, diagnosis: str = "") -> Job:
        """A new job that receives its files. Raises FullError if too many do, or wait."""
        if self._count("receiving") >= MAX_RECEIVING or self._count("queued") >= MAX_QUEUED:
            raise FullError
        identifier = secrets.token_hex(16)
        self._connection.execute(
            "INSERT INTO jobs (id, owner, diagnosis, state, changed) VALUES (?, ?, ?, 'receiving', ?)",
            (identifier, owner, diagnosis, time.time()),
        )
        job = self.find(identifier)
        assert job is not None, "it was just added"
        return job

    def find(self, identifier: str) -> Job | None:
        """The job of that name, if there is one."""
        row = self._connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else Job(*row)

    def touch(self, identifier: str) -> None:
        """Notes that files still arrive."""
        self._connection.execute("UPDATE jobs SET changed = ? WHERE id = ?", (time.time(), identifier))

    def enqueue(self, identifier: str) -> bool:
        """Puts a job that has its files at the end; False if it was not receiving any more."""
        changed = self._connection.execute(
            "UPDATE jobs SET state = 'queued', changed = ?, place = (SELECT max(place) + 1 FROM jobs) "
            "WHERE id = ? AND state = 'receiving'",
            (time.time(), identifier),
        )
        return changed.rowcount == 1

    def take(self) -> Job | None:
        """The job whose turn it is, now running; None if none waits."""
        row = self._connection.execute(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1, changed = ? "
            "WHERE id = (SELECT id FROM jobs WHERE state = 'queued' ORDER BY place LIMIT 1) RETURNING id",
            (time.time(),),
        ).fetchone()
        return None if row is None else self.find(row[0])

    def finish(self, identifier: str, error: str = "", hint: str = "") -> None:
        """Ends a running job: done, or failed with an error."""
        self._connection.execute(
            "UPDATE jobs SET state = ?, changed = ?, error = ?, hint = ? WHERE id = ? AND state = 'running'",
            ("failed" if error else "done", time.time(), error, hint, identifier),
        )

    def give_back(self, identifier: str) -> None:
        """Queues a running job again that the server ends before it is done; that is no attempt."""
        self._connection.execute(
            "UPDATE jobs SET state = 'queued', attempts = attempts - 1 WHERE id = ? AND state = 'running'",
            (identifier,),
        )

    def ahead(self, job: Job) -> int:
        """How many jobs come before a queued one, the running one included."""
        count: int = self._connection.execute(
            "SELECT count(*) FROM jobs WHERE state = 'running' OR (state = 'queued' AND place < ?)", (job.place,)
        ).fetchone()[0]
        return count

    def remove(self, identifier: str) -> None:
        """Forgets a job."""
        self._connection.execute("DELETE FROM jobs WHERE id = ?", (identifier,))

    def expired(self, keep_seconds: float) -> list[str]:
        """Jobs that ended longer ago than that, and uploads that stand still."""
        now = time.time()
        rows = self._connection.execute(
            "SELECT id FROM jobs WHERE (state IN ('done', 'failed') AND changed < ?) "
            "OR (state = 'receiving' AND changed < ?)",
            (now - keep_seconds, now - RECEIVING_SECONDS),
        )
        return [row[0] for row in rows.fetchall()]

    def _count(self, state: str) -> int:
        count: int = self._connection.execute("SELECT count(*) FROM jobs WHERE state = ?", (state,)).fetchone()[0]
        return count
