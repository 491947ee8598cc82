"""The commands as the program itself knows them."""

from __future__ import annotations

from collections.abc import Iterator
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
