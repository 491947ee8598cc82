"""A training can be stopped anywhere: killed for good, it goes on and ends with the same bytes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commandline import to_set
from datasets import LABELS, write_dataset

from ucadi.commands.init import init
from ucadi.commands.train import train
from ucadi.errors import FormatError, MismatchError, OutputError
from ucadi.formats import checkpoint as checkpoint_format
from ucadi.formats.container import file_digest
from ucadi.learn.state import EpochRecord, TrainingState

OPTIONS = (
    "--set", "local_epochs=6", "--set", "total_epochs=8", "--set", "warmup_epochs=1", "--set", "batch_size=3",
    "--set", "seed=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_dataset(folder / "a.h5", LABELS * 5)
    write_dataset(folder / "b.h5", LABELS * 5, first=50)
    init(output=folder / "base.weights", width=2, size=16)
    return folder


def start(folder: Path, output: Path, *options: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from ucadi.cli import main; main()", "train", folder / "a.h5", "--site", "a"]
    command += ["--base", folder / "base.weights", *OPTIONS, "-o", output, *options]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


@pytest.mark.slow
def test_killed_at_random_moments(folder: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "whole.update"
    finish(start(folder, undisturbed))
    killed, checkpoint = tmp_path / "killed.update", tmp_path / "a.checkpoint"
    rng = random.Random(20)
    stood_at = set()
    for _ in range(4):
        process = start(folder, killed, "--checkpoint", checkpoint, "--checkpoint-every", "0s")
        before = checkpoint.read_bytes() if checkpoint.exists() else b""
        while process.poll() is None and (not checkpoint.exists() or checkpoint.read_bytes() == before):
            time.sleep(0.005)  # it has started: from the first step on, anything may be under way
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        process.communicate()
        if killed.exists():
            break
        metadata = checkpoint_format.container.read(checkpoint).metadata
        stood_at.add((metadata["next_epoch"], metadata["next_step"]))
    assert stood_at, "it was over before it could be killed"
    assert any(step > 0 for _, step in stood_at), "never within an epoch"
    if not killed.exists():
        finish(start(folder, killed, "--checkpoint", checkpoint))
    assert file_digest(killed) == file_digest(undisturbed)
    assert not checkpoint.exists(), "there is nothing left to go on with"
    assert [path for path in tmp_path.iterdir() if path.suffix not in (".update", ".part")] == []


def options(folder: Path, **changed: object) -> dict[str, object]:
    chosen: dict[str, object] = {
        "dataset": folder / "a.h5", "base": folder / "base.weights", "site": "a",
        "settings": to_set(total_epochs=4, local_epochs=1, batch_size=4, warmup_epochs=0),
    }  # fmt: skip
    return chosen | changed


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dataset": "b.h5"}, "cases"),
        ({"base": "other.weights"}, "base"),
        ({"settings": to_set(total_epochs=4, batch_size=4, warmup_epochs=0, seed=3)}, "recipe"),
        ({"first_epoch": 1}, "epochs"),
    ],
)
def test_another_trainings_checkpoint(
    folder: Path, tmp_path: Path, changed: dict[str, object], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (folder / "other.weights").exists():
        init(output=folder / "other.weights", width=2, size=16, seed=1)
    changed = {name: folder / value if isinstance(value, str) else value for name, value in changed.items()}
    checkpoint = tmp_path / "a.checkpoint"
    with monkeypatch.context() as context:  # it is stopped when all is trained and nothing written
        context.setattr("ucadi.formats.update.write_update", _stop)
        with pytest.raises(KeyboardInterrupt):
            train(**options(folder), output=tmp_path / "x.update", checkpoint=checkpoint)  # type: ignore[arg-type]
    kept = checkpoint.read_bytes()
    with pytest.raises(MismatchError, match=rf"another training: {named} differ") as caught:
        train(**options(folder, **changed), output=tmp_path / "x.update", checkpoint=checkpoint)  # type: ignore[arg-type]
    assert "remove it" in (caught.value.hint or "")
    assert checkpoint.read_bytes() == kept
    result = train(**options(folder), output=tmp_path / "x.update", checkpoint=checkpoint)  # type: ignore[arg-type]
    assert len(result.loss) == 1


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_is_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.checkpoint"
    bad.write_bytes(b"\x80\x04 a pickle, perhaps")
    with pytest.raises(FormatError, match=r"bad\.checkpoint") as caught:
        train(**options(folder), output=tmp_path / "x.update", checkpoint=bad)  # type: ignore[arg-type]
    assert "start afresh" in (caught.value.hint or "")
    with pytest.raises(OutputError, match="no such folder"):
        train(**options(folder), output=tmp_path / "x.update", checkpoint=tmp_path / "no" / "x")  # type: ignore[arg-type]


def test_an_existing_output_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.update").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        train(**options(folder, dataset=folder / "absent.h5"), output=tmp_path / "x.update")  # type: ignore[arg-type]


def test_a_state_goes_there_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def arrays() -> dict[str, np.ndarray]:
        return {"a.b": rng.normal(size=(2, 3)).astype(np.float32), "c": rng.normal(size=()).astype(np.float32)}

    records = (EpochRecord(3, 0.1, 0.5, None, 1e-3), EpochRecord(4, 1 / 3, 0.25, 0.75, 1e-3, 0.2, 0.9))
    probabilities = rng.random((5, 4)).astype(np.float32)
    written = TrainingState(5, arrays(), arrays(), arrays(), arrays(), 2, (0.1, 1 / 7), probabilities, records)
    checkpoint_format.write(tmp_path / "x", {"base": "b"}, written)
    read = checkpoint_format.read(tmp_path / "x", {"base": "b"})
    assert read is not None
    for name, value in vars(written).items():
        found = getattr(read, name)
        if isinstance(value, dict):
            assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in value.items()}
        elif isinstance(value, np.ndarray):
            assert np.array_equal(found, value)
        else:
            assert found == value
    assert checkpoint_format.read(tmp_path / "absent", {}) is None
