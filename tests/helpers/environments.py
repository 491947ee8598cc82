"""Environments with a part of what the tests' own has, for what is said and done where something is not installed."""

from __future__ import annotations

import sys
import venv
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str, extras: Collection[str] = (), without: Collection[str] = ()) -> set[str]:
    """The distribution with these extras, and all that it needs."""
    found: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(name), set(extras))]
    while waiting:
        distribution, asked = waiting.pop()
        if distribution in without or (distribution in found and asked <= found[distribution]):
            continue
        asked |= found.get(distribution, set())
        found[distribution] = asked
        waiting += [(canonicalize_name(r.name), set(r.extras)) for r in _required(distribution, asked)]
    return set(found)


def _required(name: str, extras: Collection[str]) -> Iterator[Requirement]:
    for line in metadata.distribution(name).requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def linked(folder: Path, *extras: str, without: Collection[str] = ()) -> Path:
    """Makes an environment with ucadi, these extras, and nothing else, of links into the one that the tests run in.

    Returns the folder of its programs. `without` are distributions to leave out, though an extra brings them.
    """
    venv.create(folder, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for name in needed("ucadi", extras, without):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(distribution.locate_file(top)))
    program = Path(sys.executable).with_name("ucadi").read_text()
    script = folder / "bin/ucadi"
    script.write_text(f"#!{folder}/bin/python\n" + program.partition("\n")[2])
    script.chmod(0o755)
    return folder / "bin"
