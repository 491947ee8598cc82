"""People who wait for a training see how it goes: lines, a table, a picture, TensorBoard; also after a stop."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset
from matplotlib import image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ucadi.commands.init import init
from ucadi.commands.train import train
from ucadi.learn.state import EpochRecord
from ucadi.scoring.curves import learning_curve_png
from ucadi.workflows.reporting import describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reporting")
    write_dataset(folder / "a.h5", LABELS * 3)
    write_dataset(folder / "v.h5", LABELS * 2, first=500)
    init(output=folder / "base.weights", width=2, size=16)
    return folder


def options(folder: Path) -> list[str]:
    return [
        "train", str(folder / "a.h5"), "--base", str(folder / "base.weights"), "--site", "a", "--set", "batch_size=6",
        "--set", "total_epochs=4", "--set", "local_epochs=3", "--validation", str(folder / "v.h5"),
    ]  # fmt: skip


def test_a_training_tells_how_it_goes(folder: Path, tmp_path: Path) -> None:
    log, board = tmp_path / "log", tmp_path / "board"
    command = [sys.executable, "-c", "from ucadi.cli import main; main()", *options(folder), "-o", str(tmp_path / "x")]
    done = subprocess.run(
        [*command, "--log", str(log), "--tensorboard", str(board)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == [f"epoch {n} of 4" for n in (1, 2, 3)]
    assert all(word in lines[0] for word in ("loss", "AUC", "validation AUC"))
    assert done.stdout.count("\n") == 1

    with (log / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["validation_loss"]) > 0 for row in rows)
    assert f"loss {float(rows[2]['loss']):.3f}" in lines[2]
    assert (log / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    shown = EventAccumulator(str(board))
    shown.Reload()
    found = {event.step: event.value for event in shown.Scalars("loss")}
    assert found == {int(row["epoch"]): pytest.approx(float(row["loss"]), rel=1e-6) for row in rows}
    assert len(shown.Scalars("validation/auc")) == 3


def test_the_table_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(
            folder / "a.h5", base=folder / "base.weights", site="a", output=tmp_path / f"{name}.update",
            settings=to_set(batch_size=6, total_epochs=2, warmup_epochs=0), log=tmp_path / name,
        )  # fmt: skip
    for name in ("epochs.csv", "curve.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_epoch_in_a_line() -> None:
    assert describe(EpochRecord(4, 0.51234, 0.75, None, 0.01), 100) == "epoch 5 of 100: loss 0.512, accuracy 0.75"
    full = EpochRecord(0, 1.2, 0.5, 0.6, 0.0, 1.3, 0.7)
    assert describe(full, 9).endswith("AUC 0.600, validation loss 1.300, validation AUC 0.700")


def test_the_curve_shows_its_lines(tmp_path: Path) -> None:
    falling, gaps = [1.0, 0.6, 0.4], [None, 0.7, None]
    picture = tmp_path / "curve.png"
    picture.write_bytes(learning_curve_png([0, 1, 2], {"loss": {"training": falling, "validation": gaps}}))
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert width > height > 200
    pixels = image.imread(picture)[..., :3]
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert (np.abs(pixels - blue).max(axis=2) < 0.02).sum() > 200, "the first line is blue"
