"""The commands: run as a user would, and as the program itself knows them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ucadi.cli import command_line


def every_command() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of each command, and the command; groups are not among them."""
    yield from _below((), command_line(whole=True))


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
    else:
        for word, one in inner.items():
            yield from _below((*words, word), one)


def ucadi(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from ucadi.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def to_set(**values: object) -> list[str]:
    """Hyper-parameters as the words that come after --set."""
    return [f"{name}={value}" for name, value in values.items()]


def run(*arguments: str | Path) -> dict:
    """Runs a command that must succeed and returns its result."""
    result = ucadi(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@dataclass(frozen=True)
class Result:
    """How a command ended that ran in this process. `exception` is SystemExit where it ended as it should."""

    exit_code: int
    stdout: str
    stderr: str
    exception: BaseException | None


def invoke(*arguments: object) -> Result:
    """Runs a command in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2)]
    code, exception = 1, None
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            command_line()(list(map(str, arguments)))
        except SystemExit as end:
            code, exception = end.code, end
        except Exception as error:  # the test says whether that is right
            exception = error
    return Result(code, *(stream.buffer.getvalue().decode() for stream in streams), exception)  # type: ignore[attr-defined]
