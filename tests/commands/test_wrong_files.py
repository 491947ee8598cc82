"""Whatever file is put in whatever place of a command: an error names it, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from slots import Slot, World, is_output, make_world, slots

INPUTS = [slot for slot in slots() if slot.is_path and not is_output(slot)]

WRONG = ("missing", "folder", "empty", "dataset", "weights", "key", "card", "json", "random", "/dev/null")

DATASETS = {
    ("merge", "datasets"), ("split", "dataset"), ("train", "dataset"), ("train", "validation"), ("predict", "dataset"),
    ("evaluate", "dataset"), ("gradcam", "dataset"), ("translate train", "contrast"),
    ("translate train", "noncontrast"), ("translate divide", "dataset"),
    ("translate apply", "dataset"), ("translate evaluate", "source"),
    ("translate evaluate", "real"), ("site run", "dataset"), ("site run", "test"), ("inspect", "path"),
}  # fmt: skip
WEIGHTS = {
    ("train", "base"), ("predict", "model"), ("gradcam", "model"), ("export", "model"), ("apply", "base"),
    ("round open", "base"), ("serve", "model"), ("translate evaluate", "classifier"), ("inspect", "path"),
}  # fmt: skip
KEYS = {
    ("inspect", "path"), ("partial-decrypt", "key"), ("decrypt", "key"), ("push", "key"), ("pull", "key"),
    ("wait", "key"), ("site run", "key"), ("relay serve", "key"), ("ledger accept-loss", "key"),
}  # fmt: skip
CARDS = {
    ("inspect", "path"), ("roster create", "cards"), ("roster add", "cards"), ("roster rotate", "cards"),
    ("push", "relay_card"), ("pull", "relay_card"), ("wait", "relay_card"), ("coordinate", "relay_card"),
    ("site run", "relay_card"),
}  # fmt: skip
FOLDERS = {("audit", "models"), ("pull", "exchange"), ("push", "exchange")}
OTHERS = {
    ("preprocess", "salt"): {"missing", "random"},  # a salt is made; any bytes are one
    ("train", "recipe"): {"empty", "/dev/null"},  # nothing but defaults
    ("round open", "recipe"): {"empty", "/dev/null"},
    ("translate train", "recipe"): {"empty", "/dev/null"},
    ("passphrase", "passphrase_file"): {"empty", "card", "json", "random"},  # any text may be one, of another key
    ("push", "files"): set(WRONG) - {"missing", "folder", "/dev/null"},  # the relay moves bytes of any kind
}


def is_no_mistake(slot: Slot, kind: str) -> bool:
    """Whether a file of this kind is what the slot is for."""
    name = (slot.command, slot.parameter)
    right = {"dataset": DATASETS, "weights": WEIGHTS, "key": KEYS, "card": CARDS, "folder": FOLDERS}
    return name in right.get(kind, ()) or kind in OTHERS.get(name, ())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def wrong(world: World, tmp_path: Path) -> dict[str, Path]:
    """A file of each kind, under a name that only it has."""
    folder = tmp_path / "wrong"
    folder.mkdir()
    made = {kind: folder / f"wrong-{kind}" for kind in WRONG if not kind.startswith("/")}
    made["folder"].mkdir()
    made["empty"].touch()
    made["json"].write_text('{"a": 1}')
    made["random"].write_bytes(bytes(range(1, 256)) * 8)
    made["key"].touch(mode=0o600)
    for kind, source in (("dataset", "test.h5"), ("weights", "base.weights"), ("card", "site-b.card")):
        shutil.copy(world.files / source, made[kind])
    shutil.copyfile(world.hub.key("site-b"), made["key"])
    return made | {"/dev/null": Path("/dev/null")}


def tree(folder: Path) -> list[str]:
    return sorted(os.path.relpath(Path(at, name), folder) for at, _, names in os.walk(folder) for name in names)


@pytest.mark.parametrize("slot", INPUTS, ids=str)
def test_a_wrong_file_is_called_by_its_name(world: World, wrong: dict[str, Path], tmp_path: Path, slot: Slot) -> None:
    out = tmp_path / "out"
    out.mkdir()
    faults = []
    for kind, path in wrong.items():
        if is_no_mistake(slot, kind):
            continue
        result = world.run(slot, path, out)
        said = result.stderr
        if (
            result.exit_code not in range(2, 10)
            or "error: " not in said
            or not (path.name in said or (kind == "key" and "site-b" in said))
        ):
            faults.append(f"{kind}: rc {result.exit_code}, {said.strip()[-300:]!r} {result.exception!r}")
        if left := tree(out):
            faults.append(f"{kind}: left {left}")
            shutil.rmtree(out)
            out.mkdir()
    assert not faults, "\n".join(faults)


OUTPUTS = [slot for slot in slots() if is_output(slot)]

MADE_FOLDERS = {
    ("keygen", "output"), ("courier unpack", "exchange"), ("site run", "exchange"), ("site run", "work"),
    ("train", "log"), ("train", "tensorboard"), ("translate train", "samples"), ("aggregate", "quarantine"),
    ("partial-decrypt", "ledger"), ("pacs pull", "output"), ("serve", "work"), ("predict", "output"),
}  # fmt: skip
"""Folders that may be there already, and are made with what is above them: nothing in them is replaced."""


READ_ONLY = Path("/sys/kernel")
"""A folder in which not even root can make a file."""


@pytest.mark.parametrize("slot", OUTPUTS, ids=str)
def test_an_output_that_cannot_be_written_is_an_error_that_names_it(world: World, tmp_path: Path, slot: Slot) -> None:
    out = tmp_path / "out"
    out.mkdir()
    there = tmp_path / "precious"
    there.write_bytes(b"precious")
    places = {"a file": there, "a device": Path("/dev/full"), "read-only": READ_ONLY / "made"}
    if (slot.command, slot.parameter) not in MADE_FOLDERS:
        places |= {"no folder": tmp_path / "nowhere/made", "/proc": Path("/proc/made")}
    if slot.parameter == "log" and slot.command != "train":  # lines are added to what is there
        del places["a file"], places["a device"]
    faults = []
    for kind, path in places.items():
        before = tree(tmp_path)
        result = world.run(slot, path, out)
        named = path.name in result.stderr or (kind == "no folder" and path.parent.name in result.stderr)
        if result.exit_code not in range(2, 10) or not named:
            faults.append(f"{kind}: rc {result.exit_code}, {result.stderr.strip()[-300:]!r} {result.exception!r}")
        if there.read_bytes() != b"precious":
            faults.append(f"{kind}: replaced")
        if left := sorted(set(tree(tmp_path)) - set(before)):
            faults.append(f"{kind}: left {left}")
            shutil.rmtree(out)
            out.mkdir()
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("slot", [slot for slot in slots() if hasattr(slot.type, "clamp")], ids=str)
def test_every_number_has_bounds(slot: Slot) -> None:
    assert slot.type.min is not None
    assert slot.type.max is not None


def test_no_number_is_without_a_type_that_bounds_it() -> None:
    assert [str(slot) for slot in slots() if slot.type.name in ("integer", "float")] == []
