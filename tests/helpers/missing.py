"""Which commands do without which libraries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from commandline import every_command

CORE = {
    *("aggregate", "apply", "audit", "coordinate", "courier pack", "courier unpack", "decrypt"),
    *("encrypt", "histogram", "init", "inspect", "keygen", "ledger accept-loss", "ledger show"),
    *("partial-decrypt", "passphrase", "pull", "push", "relay serve", "roster accept", "roster add", "roster create"),
    *("roster remove", "roster rotate", "roster show", "round close", "round open", "round status"),
    *("round times", "tag", "verify", "wait"),
}
"""What a coordinator's or a relay's machine does."""

VALUES = {
    "url": "https://pacs.example.org/dicom-web",
    "to": "non-contrast",
    "output": "made.onnx",
    "modality": "CT",
    "number": "1",
    "reason": "none",
}
"""Of parameters that must be given and are neither files nor any word."""


ONE_AFTER_THE_OTHER = """
import contextlib, io, json, os, sys
from ucadi.cli import command_line
for name, arguments in (answers := json.loads(sys.argv[1])).items():
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        try:
            command_line()(arguments)
        except SystemExit as end:
            answers[name] = end.code, os.listdir(), errors.getvalue()
    for path in os.listdir():
        os.remove(path)
print(json.dumps(answers))
"""
"""Runs commands in one process: its libraries take longer to load than the commands to fail."""


def least(words: Sequence[str], command: Any) -> Iterator[str]:
    """The command with all that must be given: files that are not there, and words."""
    yield from words
    for parameter in command.params:
        if parameter.required:
            value = VALUES.get(parameter.name, f"no-such-{parameter.name}")
            yield from [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]


def check_that_commands_say_what_is_missing(programs: Path, folder: Path) -> None:
    """Every command that needs more than the core says so, though none of the files that it was given exists."""
    given = {" ".join(words): list(least(words, command)) for words, command in every_command()}
    run = [programs / "python", "-c", ONE_AFTER_THE_OTHER, json.dumps(given)]
    ran = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=300, check=True)
    said = set()
    for name, (code, written, errors) in json.loads(ran.stdout).items():
        if "not installed" in errors:
            said.add(name)
            assert (code, written, errors.count("\n")) == (2, [], 2), (name, errors)
    assert said == set(given) - CORE
