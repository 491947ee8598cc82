"""Runs the shell blocks of a page as a reader types them: in order, in one shell, in a folder of their own.

What stands in a page beside its ```sh blocks, in HTML comments that no reader sees:

    <!-- set-up ... -->         commands that bring what the page takes for granted; functions are in shellblocks.sh
    <!-- file: NAME -->         before a block of another kind: the reader is to have it as a file of that name
    <!-- goes on -->            before a block: it ends only when it is stopped
    <!-- not run: WHY -->       before a block: no test can run it

A ```text block right after a ```sh block is what it prints; `…` stands for anything.

The shell is in namespaces of its own: no network but its loopback, where the names of examples lead, so that ports are
free; and no other processes, so that nothing is left running.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from places import ROOT

HOSTS = ("relay.example.org", "ct.example.org")
"""Names in the pages that lead to the test's own loopback."""

APART = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")


def available() -> bool:
    """Whether this machine lets us have such namespaces; containers often do not."""
    try:
        return subprocess.run([*APART, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


Kind = Literal["run", "goes on", "not run", "set-up", "file", "output"]

_PART = re.compile(
    r"<!-- (?P<mark>set-up|goes on|not run|file)(?::? (?P<said>[^\n]*?))?(?:\n(?P<commands>.*?)\n)?\s*-->"
    r"|^```(?P<language>\S*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A part of a page: what it is, its text, and why it is not run or what file it is."""

    kind: Kind
    text: str
    said: str = ""


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page that concern a shell, in their order."""
    mark, said, after_shell = "", "", -1
    for found in _PART.finditer(page):
        if found["mark"] == "set-up":
            yield Block("set-up", found["commands"])
        elif found["mark"]:
            mark, said = found["mark"], found["said"] or ""
        else:
            language, text = found["language"], found["text"]
            if language == "sh":
                yield Block(mark or "run", text, said)  # type: ignore[arg-type]  # a mark of the pattern
            elif mark == "file":
                yield Block("file", text, said)
            elif language == "text" and not page[after_shell : found.start()].strip():
                yield Block("output", text)
            mark, said, after_shell = "", "", found.end()


def script(parts: list[Block], output: Path) -> str:
    """The blocks as a shell script, which writes what block N prints to the file N in the folder `output`."""
    hosts = "".join(f"127.0.0.1 {name}\n" for name in ("localhost", *HOSTS))
    lines = [
        f"source {shlex.quote(str(Path(__file__).with_suffix('.sh')))}",
        f"names {shlex.quote(hosts)}",
        "set -eo pipefail",
    ]
    for number, part in enumerate(parts):
        told = shlex.quote(str(output / str(number)))
        match part.kind:
            case "set-up":
                lines += [f"{{\n{part.text}\n}} >&2"]
            case "file":
                lines += [f"cat >{shlex.quote(part.said)} <<'END OF FILE'\n{part.text}END OF FILE"]
            case "run":
                lines += [f"echo {told} >{output}/block", f"{{\n{part.text}}} >{told}"]
            case "goes on":
                lines += [f"{{\n{part.text}}} >{told} 2>&1 &", f"running {told} $!"]
    return "\n".join([*lines, "still_running", ""])


def run(page: Path, folder: Path, programs: Mapping[str, Path]) -> None:
    """Runs a page's blocks in `folder`, which is made; AssertionError for one that fails or prints something else.

    programs: folders of programs by the names of environments, which `at NAME` in a set-up chooses; the first at first.
    """
    work, output = folder / "work", folder / "output"
    work.mkdir(parents=True)
    output.mkdir()
    parts = list(blocks(page.read_text()))
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "VIRTUAL_ENV")}
    own |= {f"PROGRAMS_{name}": str(place) for name, place in programs.items()}
    own["PATH"] = f"{next(iter(programs.values()))}:{os.environ['PATH']}"
    own["ROOT"] = str(ROOT)
    ran = subprocess.run(
        [*APART, "bash", "-c", script(parts, output)], cwd=work, env=own, capture_output=True, text=True, timeout=1500
    )
    last = output / "block"
    block = parts[int(Path(last.read_text().strip()).name)].text if last.exists() else "(set-up)"
    assert ran.returncode == 0, f"{page.name}, at or after:\n{block}\n{ran.stderr}"
    for number, part in enumerate(parts):
        if part.kind == "output":
            printed = (output / str(number - 1)).read_text().rstrip()
            wanted = ".*".join(map(re.escape, part.text.rstrip().split("…")))
            assert re.fullmatch(wanted, printed, re.DOTALL), f"{page.name} says\n{part.text}\nbut it is\n{printed}"
