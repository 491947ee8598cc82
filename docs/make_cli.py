"""Writes docs/cli.md from the commands themselves; with --print, prints it instead."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from ucadi.cli import EXAMPLE, command_line


def page() -> str:
    """The reference of all commands, as Markdown."""
    command = command_line(whole=True)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="ucadi", title="The commands")
    text = text.replace(f"\b\n{EXAMPLE}\n", f"{EXAMPLE}\n\n")
    exits = """
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug: please report the traceback |
| 2 | usage: an option that does not exist, or a part of ucadi that is not installed |
| 3 | format: a file is not what it should be: truncated, foreign, of another version |
| 4 | mismatch: files that do not belong together: another base, plan, roster, key, signature or label |
| 5 | series: a CT series that cannot be used |
| 6 | capacity: a number out of its range |
| 7 | output: it exists already, or the disk is full or read-only |
| 8 | relay: unreachable, or it refuses |
| 9 | archive (PACS): unreachable, it refuses, or it sends what was not asked for |
| 10 | unverified: `audit` and `verify` found nothing wrong, and yet could not recompute everything |
| 11 | consent: people at this site have not agreed: a roster that is not accepted, a round that its policy excludes |
| 130 | interrupted |
| 141 | whoever read the output has closed the pipe |

With `--json`, an error is one JSON object on stderr: `kind` (a word: `usage`, `format`, `mismatch`, `signature`,
`unsound`, `series`, `capacity`, `output`, `relay`, `archive`, `consent`), `code` (the exit code), `message` and `hint`
(or null). That holds for a command line that cannot be understood, too. The result stays alone on stdout.
"""
    return "<!-- made by docs/make_cli.py from the code -->\n\n" + text.rstrip("\n") + "\n" + exits


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(page())
    else:
        (Path(__file__).parent / "cli.md").write_text(page())
