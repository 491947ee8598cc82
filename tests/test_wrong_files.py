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
    ("translate train", "noncontrast"), ("translate apply", "dataset"), ("translate evaluate", "source"),
    ("translate evaluate", "real"), ("site run", "dataset"), ("site run", "test"), ("inspect", "path"),
}  # fmt: skip
WEIGHTS = {
    ("train", "base"), ("predict", "model"), ("gradcam", "model"), ("export", "model"), ("apply", "base"),
    ("round open", "base"), ("serve", "model"), ("translate evaluate", "classifier"), ("inspect", "path"),
}  # fmt: skip
KEYS = {
    ("inspect", "path"), ("partial-decrypt", "key"), ("decrypt", "key"), ("push", "key"), ("pull", "key"),
    ("watch", "key"), ("site run", "key"), ("relay serve", "key"),
}  # fmt: skip
CARDS = {
    ("inspect", "path"), ("roster create", "cards"), ("roster add", "cards"), ("roster rotate", "cards"),
    ("push", "relay_card"), ("pull", "relay_card"), ("watch", "relay_card"), ("coordinate", "relay_card"),
    ("site run", "relay_card"),
}  # fmt: skip
FOLDERS = {("audit", "beside"), ("pull", "exchange"), ("push", "exchange")}
OTHERS = {
    ("preprocess", "salt"): {"missing", "random"},  # a salt is made; any bytes are one
    ("train", "recipe"): {"empty", "/dev/null"},  # nothing but defaults
    ("round open", "recipe"): {"empty", "/dev/null"},
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
