"""No option is taken and then ignored: each changes what comes out, or is refused with a hint."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commandline import invoke, to_set
from slots import Slot, World, is_output, make_world, slots

OPTIONAL = [slot for slot in slots() if slot.option and not slot.required]

WITHOUT_EFFECT = {
    "as_json": "how the result is printed",
    "force": "only what exists already is replaced",
    "workers": "how many processes",
    "device": "where it is computed",
    "poll": "how often it looks",
    "save_memory": "the same numbers in less memory",
    "checkpoint": "a file that is removed at the end",
    "log": "lines that are told anyway",
    "tensorboard": "a copy of the records, in a folder of its own",
    "until_round": "when a loop ends; here it looks once",
    "deadline": "how long a loop waits; here it looks once",
}
"""Options that change no result, by their names, with the reason."""

ALSO_WITHOUT = {
    ("translate train", "skip"): "the default; --no-skip is what changes something",
    ("split", "test"): "12 patients: the same number for testing",
    ("coordinate", "sites"): "of the next round, which is not opened yet",
    ("coordinate", "headroom"): "of the next round, which is not opened yet",
    ("evaluate", "intervals"): "other limits of intervals, in the report alone",
    ("preprocess", "reuse"): "the same cases, read elsewhere",
    ("site run", "clip"): "no value is out of its range",
    ("aggregate", "clip"): "no value is out of its range",
    ("encrypt", "clip"): "no value is out of its range",
    ("ledger accept-loss", "yes"): "given already, as nobody is there to ask",
}

ELSEWHERE = {
    "demo",
    "relay serve",
    "push",
    "pull",
    "wait",
    "serve",
    "preprocess",
    "pacs pull",
    "pacs push",
    "site run",
    "coordinate",
}
"""Commands that talk to others, run long or need real scans: their own tests refuse what would do nothing."""

NEW_EACH_TIME = {"encrypt", "keygen", "partial-decrypt", "roster rotate", "phantom"}
"""What these write differs with each run, so that a change shows nothing."""

VALUES: dict[str, Any] = {
    "settings": to_set(drop_rate=0.3)[0],
    "method": "acl-gan",
    "diagnosis": "bacterial",
    "part": "trainval",
    "validation_part": "val-1",
    "operating_point": "youden",
    "unit": "patient",
    "blocks": "3,1,2",
    "architecture": "resnet50",
    "norm": "group",
    "rule": "median",
    "quorum": "2",
    "site": "site-b",
    "size": "48",
    "depth": "5",
    "level": "0.01",
    "minimum_sites": "2",
    "series": "1.2.3",
    "format": "onnx",
    "layer": "act",
    "coordinator": "0000 0000 0000 0000 0000",
    "count_scores_of": "a" * 64,
    "max_size": "9GB",
    "checkpoint_every": "1s",
}
"""A value other than the default, by the option's name, where its type does not give one."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    "slot", [s for s in OPTIONAL if s.is_path and not is_output(s) and s.parameter != "salt"], ids=str
)
def test_a_file_that_is_named_is_read_or_refused(world: World, slot: Slot, tmp_path: Path) -> None:
    """Alone, beside nothing that would make the command look at it. (A salt is made if it is not there.)"""
    out = tmp_path / "out"
    out.mkdir()
    arguments = {**world.right(slot.command, out), slot.parameter: tmp_path / "no-such-file"}
    result = invoke(*line(slot.command, arguments))
    assert result.exit_code in range(2, 10), result.stdout
    assert "error: " in result.stderr
    assert slot.option in result.stderr or "no-such-file" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "slot",
    [
        slot
        for slot in OPTIONAL
        if slot.parameter not in WITHOUT_EFFECT
        and (slot.command, slot.parameter) not in ALSO_WITHOUT
        and slot.command not in ELSEWHERE | NEW_EACH_TIME
        and not (slot.is_path and is_output(slot))
    ],
    ids=str,
)
def test_an_option_changes_something_or_is_refused(world: World, slot: Slot, tmp_path: Path) -> None:
    if slot.is_path and slot.parameter in world.right(slot.command, tmp_path):
        return  # it is used already: what it names decides whether the command succeeds
    without = outcome(world, slot, tmp_path / "without", None)
    given = outcome(world, slot, tmp_path / "with", value_of(world, slot))
    assert "is not in the range" not in given[1], "the test must give a value that the option takes"
    assert given != without, f"{slot} was given and changed nothing: {given[:2]}"


def outcome(world: World, slot: Slot, folder: Path, value: Any) -> tuple[Any, ...]:
    """Exit code, what was printed, and the digests of all files, of a run in a copy of the world."""
    shutil.copytree(world.files.parent, folder / "w")
    own = replace(world, files=folder / "w/files", hub=replace(world.hub, folder=folder / "w/hub"))
    out = folder / "out"
    out.mkdir()
    arguments = own.right(slot.command, out)
    if value is not None:
        arguments[slot.parameter] = value
    result = invoke(*line(slot.command, arguments))
    text = re.sub(r"[0-9.]+ s\b", "", (result.stdout + result.stderr).replace(str(folder), ""))
    made = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".html",)
    }
    return result.exit_code, text, made


def line(command: str, arguments: dict[str, Any]) -> list[Any]:
    """The command line; an option whose value is an empty list is a flag."""
    words: list[Any] = command.split()
    for one in slots():
        if one.command == command and one.parameter in arguments and arguments[one.parameter] is not None:
            value = arguments[one.parameter]
            words += [one.option] if one.option else []
            words += value if isinstance(value, list) else [value]
    return words


def value_of(world: World, slot: Slot) -> Any:
    """A value that is not the default; an empty list for a flag."""
    if (slot.command, slot.parameter) in VALUES_OF:
        return VALUES_OF[slot.command, slot.parameter]
    if slot.parameter in VALUES:
        return VALUES[slot.parameter]
    if slot.is_path:
        return world.files / f"of-{slot.parameter}" if not (found := PATHS.get(slot.parameter)) else world.files / found
    kind = type(slot.type).__name__
    if "Bool" in kind:
        return []
    if "Int" in kind:
        return str(max(3, slot.type.min or 0))  # of no default
    if "Float" in kind:
        return str(max(0.6, slot.type.min or 0))
    return "3"


VALUES_OF = {
    ("roster create", "threshold"): "2",
    ("roster add", "minimum_sites"): "3",
    ("roster remove", "minimum_sites"): "3",
    ("roster accept", "size_band"): "300",
}

PATHS = {
    "plan": "plan.json",
    "roster": "federation.json",
    "split": "test.split",
    "validation": "other.h5",
    "base": "base.weights",
    "key": "site-a.key",
    "classifier": "base.weights",
    "local_norms": "site-a.update",
    "replaces": "site-a.key",
    "models": "",
    "known": "known.csv",
    "dataset": "test.h5",
}
