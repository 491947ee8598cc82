"""What a server of the diagnosis page is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 20_000
"""Most files of an upload, as many as a zip file may have members."""

MAX_QUEUED = 20
"""Most jobs that wait."""

MAX_RECEIVING = 8
"""Most jobs whose files are under way."""

RECEIVING_SECONDS = 3600.0
"""How long an upload may stand still before it is removed."""

IDLE_SECONDS = 60.0
"""How long a request may send nothing before it is ended."""

MAX_ATTEMPTS = 3
"""How often a job is begun that a crash of the whole server interrupted."""


@dataclass(frozen=True)
class Settings:
    """Where things lie, and limits. work: the private folder. upload_bytes: of all files of a job."""

    model: Path
    calibration: Path | None
    work: Path
    upload_bytes: int
    memory_bytes: int
    seconds: float
    keep_seconds: float
    min_slices: int
    dicom: bool

    def folder(self, job: str) -> Path:
        """A job's folder."""
        return self.work / "jobs" / job

    def uploads(self, job: str) -> Path:
        """Where a job's files lie, named by their numbers, until it is over."""
        return self.folder(job) / "upload"

    def results(self, job: str) -> Path:
        """Where a job's results lie."""
        return self.folder(job) / "result"
