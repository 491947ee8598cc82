"""What a person or a program sees of a command: its result, its errors, its progress, and how it ends.

Results go to stdout; errors, progress and notes to stderr. With `--json` an error is one JSON object, and nothing
else is written to a stderr that is not a terminal.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from ucadi.errors import DISK_FULL, FormatError, OutputError, UcadiError, UsageError
from ucadi.events import ReaderGoneError, say
from ucadi.progress import show_with

T = TypeVar("T")

READER_GONE = 141
"""Exit code when whoever read our output has closed the pipe: what a shell reports of any program that SIGPIPE ends."""

JSON_OPTION = "--json"

_ParserError: type[Any] = typer.BadParameter.__base__  # type: ignore[assignment]  # what the parser raises: it is public by its child only


def run(app: TyperGroup) -> int:
    """Runs the command that sys.argv names; returns the exit code. Errors of the command line are reported here."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files may be any bytes
    as_json = JSON_OPTION in sys.argv[1:]  # the parser may fail before it has seen it
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except _ParserError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            error.show()
            return int(error.exit_code)
        path = error.ctx.command_path if error.ctx else "ucadi"
        return report(UsageError(error.format_message(), hint=f"{path} --help"), as_json=as_json)
    except (SystemExit, BrokenPipeError):  # rich and typer end the process where the reader of a help page has gone
        _forget_stdout()
        return 0
    except OSError as error:
        _forget_stdout()
        return report(OutputError.of("standard output", error), as_json=as_json)
    return int(code)


def execute(work: Callable[[], Any], hint_for: Callable[[str], str | None], *, as_json: bool) -> int:
    """Does a command's work, shows its result, and returns its exit code; errors are reported, never raised.

    `hint_for` says how to install a module that is missing, or None for a module that must not be.
    """
    try:
        with _shown(as_json):
            result = work()
        if result is not None and speaks():
            say(json.dumps(asdict(result), default=_plain) if as_json else str(result))
        return int(getattr(result, "exit_code", 0))
    except UcadiError as error:
        return report(error, as_json=as_json)
    except ReaderGoneError:
        _forget_stdout()
        return READER_GONE
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        hint = hint_for(module)
        if hint is None:
            raise
        return report(UsageError(f"this command needs {module}", hint=hint), as_json=as_json)
    except OSError as error:
        if error.errno is None:
            raise
        return report(_of_system(error), as_json=as_json)


def report(error: UcadiError, *, as_json: bool) -> int:
    """Prints an error on stderr and returns its exit code."""
    if as_json:
        told = {"kind": error.kind, "code": error.exit_code, "message": error.message, "hint": error.hint}
        _to_stderr(json.dumps(told))
    else:
        _to_stderr(f"ucadi: error: {error.message}")
        if error.hint:
            _to_stderr(f"ucadi: hint: {error.hint}")
    return error.exit_code


def speaks() -> bool:
    """Whether results and progress are this process's to show: under torchrun only the first one's are."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _shown(as_json: bool) -> Iterator[None]:
    if speaks() and (not as_json or sys.stderr.isatty()):
        with show_with(_progress_bar, _to_stderr):
            yield
    else:
        yield


def _of_system(error: OSError) -> UcadiError:
    """What the system refused, where no reader or writer has said it better."""
    if error.errno in (*DISK_FULL, errno.EROFS):
        return OutputError.of(error.filename or "the output", error)
    where = f"{error.filename}: " if error.filename else ""
    return FormatError(f"{where}{error.strerror}", hint="is the path right, and may you use it?")


def _forget_stdout() -> None:
    """Makes what is still buffered for stdout go nowhere, so that it does not fail again at the very end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    """JSON for what dataclasses hold beside numbers and text."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _to_stderr(line: str) -> None:
    with suppress(OSError):  # nobody may be reading any more: the work goes on
        print(line, file=sys.stderr, flush=True)


def _progress_bar(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    """Shows a bar on a terminal; elsewhere (a log file, CI) one line when the work is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        count = 0
        for count, item in enumerate(items, start=1):  # noqa: B007 - the count is printed after the loop
            yield item
        _to_stderr(f"{label}: {count} done")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield from bar.track(items, total=total, description=label)
