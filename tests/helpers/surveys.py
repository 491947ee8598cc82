"""Surveys of HDF5 files by a server that forks: what `ucadi.formats.hdf5` asks a process for, a hundred times as fast.

It is the same code under the same limits. But one process makes up to 100 surveys, one after another, before it is
replaced: or at once, if a file has made it crash.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ucadi.formats import hdf5
from ucadi.formats.hdf5 import Said

A_PROCESS = 100
"""Surveys that one process makes."""

_ENDED = 77


class Surveyor:
    """Surveys files one after another; `crashes` counts those that ended the process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.crashes = 0

    def survey(self, path: Path) -> Iterator[Said]:
        """What `hdf5.survey` gives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n".encode())
        self._process.stdin.flush()
        lines: list[bytes] = []
        # a crash may cut the last line off
        while b"\0" not in (line := self._process.stdout.readline()):
            assert line, "the server has ended"
            lines.append(line)
        cut, _, status = line.partition(b"\0")
        self.crashes += int(status) != 0
        return hdf5.understood([*lines, *filter(None, [cut])], path.name)


@contextmanager
def surveyor() -> Iterator[Surveyor]:
    """A server that lives as long as the block."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Surveyor(process)


def serve() -> None:
    """Forks surveyors until the paths on standard input end; after what each survey says comes a NUL and 0, or how its
    process ended."""
    from ucadi.formats import survey

    while True:
        child = os.fork()
        if child == 0:
            _survey_some(survey.main)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _ENDED:
            return
        if status:
            os.write(1, f"\0{status}\n".encode())


def _survey_some(survey: Callable[[], None]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for _ in range(A_PROCESS):
        path = os.read(0, 4096).decode()  # who asks waits for the answer, so this is one line
        if not path:
            os._exit(_ENDED)
        sys.argv[1:] = [path.rstrip("\n")]
        survey()
        sys.stdout.write("\x000\n")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    serve()
