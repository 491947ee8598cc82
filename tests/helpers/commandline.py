"""The commands: run as a user would, and as the program itself knows them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from ucadi.cli import app


def every_command() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of each command, and the command; groups are not among them."""
    yield from _below((), get_command(app))


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
