"""Writes a manual page for each command, and completions for three shells, from the commands themselves.

Usage: make_man.py FOLDER, which gets man/man1/ucadi-*.1 and completion/ucadi.bash, _ucadi, ucadi.fish.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.completion import get_completion_script

from ucadi import __version__
from ucadi.cli import command_line

COMPLETIONS = {"bash": "ucadi.bash", "zsh": "_ucadi", "fish": "ucadi.fish"}


def commands(command: Any, name: str = "ucadi") -> Iterator[tuple[str, Any, typer.Context]]:
    """The command and all below it, by their full names."""
    context = typer.Context(command, info_name=name)
    yield name, command, context
    for word, below in sorted(getattr(command, "commands", {}).items()):
        yield from commands(below, f"{name} {word}")


def page(name: str, command: Any, context: typer.Context) -> str:
    """A manual page in roff."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    summary = paragraphs[0].replace("\n", " ")
    lines = [f'.TH "{name.upper().replace(" ", "-")}" "1" "" "ucadi {__version__}" "ucadi manual"', ".SH NAME"]
    lines.append(f"{escaped(name.replace(' ', '-'))} \\- {escaped(summary.rstrip('.'))}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines += [".SH SYNOPSIS", f".B {escaped(name)}", escaped(usage), ".SH DESCRIPTION"]
    for paragraph in paragraphs:
        lines += [".PP", escaped(paragraph)]
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    if records:
        lines.append(".SH OPTIONS")
    for option, text in records:
        lines += [".TP", f"\\fB{escaped(option)}\\fR", escaped(" ".join(text.split()))]
    below = sorted(getattr(command, "commands", {}).items())
    if below:
        lines.append(".SH COMMANDS")
    for word, inner in below:
        lines += [".TP", f"\\fB{escaped(name)} {escaped(word)}\\fR(1)".replace(" ", "\\-")]
        lines.append(escaped(inspect.cleandoc(inner.help or "").split("\n\n")[0].replace("\n", " ")))
    lines += [
        ".SH EXIT STATUS",
        "0 done, 2 usage, 3 format, 4 mismatch, 5 series, 6 capacity, 7 output, 8 relay, 9 archive; 1 a bug.",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that roff prints as it is."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in safe.splitlines())


def main(folder: Path) -> None:
    manual, completion = folder / "man" / "man1", folder / "completion"
    for place in (manual, completion):
        place.mkdir(parents=True, exist_ok=True)
    for name, command, context in commands(command_line(whole=True)):
        (manual / f"{name.replace(' ', '-')}.1").write_text(page(name, command, context))
    for shell, file in COMPLETIONS.items():
        script = get_completion_script(prog_name="ucadi", complete_var="_UCADI_COMPLETE", shell=shell)
        (completion / file).write_text(script + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
