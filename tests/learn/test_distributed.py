"""Several processes train as one, blocks computed twice give the same bits, and running out of memory is explained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import to_set
from datasets import LABELS, write_dataset

from ucadi.commands.init import init
from ucadi.commands.train import train as train_command
from ucadi.errors import UsageError
from ucadi.formats import update as update_format
from ucadi.hyperparameters import Recipe
from ucadi.learn.distributed import Group, own_device
from ucadi.learn.loop import train
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build, state_arrays

UCADI = (sys.executable, "-c", "from ucadi.cli import main; main()")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env=environment)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", LABELS * 4 + LABELS[:1])
    write_dataset(tmp_path / "v.h5", LABELS, first=700)
    init(output=tmp_path / "base.weights", width=4, size=16)
    (tmp_path / "all.toml").write_text("drop_rate = 0.3\nproximal = 0.1\nclip_norm = 0.5\nweight_decay = 1e-4\n")
    options = [
        "train", tmp_path / "a.h5", "--site", "a", "--base", tmp_path / "base.weights", "--set", "batch_size=6",
        "--set", "local_epochs=3", "--set", "total_epochs=3", "--set", "warmup_epochs=1", "--set", "learning_rate=0.05",
        "--recipe", tmp_path / "all.toml", "--validation", tmp_path / "v.h5", "--keep-best", "--json",
    ]  # fmt: skip
    one = run(*UCADI, *options, "-o", tmp_path / "one.update")
    assert one.returncode == 0, one.stderr
    command = [*TORCHRUN, "--nproc-per-node", "2", *UCADI, *options]
    two = run(*command, "-o", tmp_path / "two.update", "--checkpoint", tmp_path / "a.checkpoint")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("\n") == 1, "the first process alone says what came of it"
    alone, together = (update_format.read_update(tmp_path / f"{name}.update") for name in ("one", "two"))
    assert (alone.examples, alone.epochs) == (together.examples, together.epochs)
    moved = max(float(np.abs(delta).max()) for delta in alone.deltas.values())
    for name, delta in alone.deltas.items():
        np.testing.assert_allclose(together.deltas[name], delta, rtol=0.01, atol=2e-4 * moved, err_msg=name)
    assert not (tmp_path / "a.checkpoint").exists()


def test_shares_of_a_batch() -> None:
    cases = np.arange(7)
    shares = [Group(rank, 3).share(cases) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1, 2], [3, 4], [5, 6]]
    with pytest.raises(UsageError, match="a batch of 2 cases for 3 processes"):
        Group(0, 3).share(cases[:2])


@pytest.mark.parametrize("name", ["densenet3d", "resnet50", "xception"])
def test_blocks_computed_twice_give_the_same_bits(name: str) -> None:
    blocks = {"densenet3d": (1, 2), "resnet50": (1, 1, 1, 1), "xception": (1,)}[name]
    results = []
    for saves_memory in (False, True):
        model = build(Architecture.of(name, width=4, blocks=blocks, size=16), 0)
        model.saves_memory = saves_memory
        recipe = Recipe(batch_size=4, drop_rate=0.3, warmup_epochs=0, total_epochs=2)

        def slab(epoch: int, index: int) -> np.ndarray:
            return np.random.default_rng((epoch, index)).normal(size=(1, 16, 16, 16)).astype(np.float32)

        train(model, slab, [0, 1, 2, 3] * 2, recipe, first_epoch=0, epochs=2)
        results.append(state_arrays(model))
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])


PEAK = """
import resource, sys
import numpy as np
from ucadi.learn.networks.architecture import Architecture
from ucadi.learn.networks.registry import build
from ucadi.hyperparameters import Recipe
from ucadi.learn.loop import train

model = build(Architecture(width=16, size=64), 0)
model.saves_memory = sys.argv[1] == "save"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slab = lambda epoch, index: np.zeros((1, 16, 64, 64), np.float32)
train(model, slab, [0, 1] * 3, Recipe(batch_size=6), first_epoch=0, epochs=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_blocks_computed_twice_take_less_memory() -> None:
    taken = [run(sys.executable, "-c", PEAK, how) for how in ("keep", "save")]
    assert all(one.returncode == 0 for one in taken), taken[0].stderr + taken[1].stderr
    keep, save = (int(one.stdout) for one in taken)
    assert save < 0.85 * keep, f"{save} kB rather than {keep} kB"


SHORT = """
import resource, sys
import ucadi.cli, ucadi.learn.loop
status = dict(line.split(":") for line in open("/proc/self/status"))
limit = 1024 * int(status["VmSize"].split()[0]) + (500 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
ucadi.cli.main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits what a process may allocate as Linux does")
def test_too_little_memory_is_explained(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", LABELS * 4, size=64)
    init(output=tmp_path / "base.weights", width=32, size=64)
    options = [
        "train",
        tmp_path / "a.h5",
        "--site",
        "a",
        "--base",
        tmp_path / "base.weights",
        "--set",
        "local_epochs=1",
    ]
    short = run(sys.executable, "-c", SHORT, *options, "-o", tmp_path / "a.update")
    assert short.returncode == 6, short.stderr
    assert "ucadi: error: there is not memory enough for a step of training" in short.stderr
    assert "--save-memory" in short.stderr
    assert "Traceback" not in short.stderr
    assert not (tmp_path / "a.update").exists()


def test_devices() -> None:
    assert own_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="no device 'tpu'"):
        own_device("tpu")
    if not torch.cuda.is_available():
        assert own_device("auto") == torch.device("cpu")
        with pytest.raises(UsageError, match="no GPU here"):
            own_device("cuda")


def test_one_process_under_torchrun_is_one_without(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", LABELS)
    init(output=tmp_path / "base.weights", width=2, size=16)
    train_command(
        tmp_path / "a.h5", base=tmp_path / "base.weights", site="a", output=tmp_path / "x",
        settings=to_set(batch_size=4, total_epochs=1, warmup_epochs=0),
    )  # fmt: skip
    options = ["train", tmp_path / "a.h5", "--site", "a", "--base", tmp_path / "base.weights", "--set", "batch_size=4"]
    done = run(
        *TORCHRUN, "--nproc-per-node", "1", *UCADI, *options, "--set", "total_epochs=1",
        "--set", "warmup_epochs=0", "-o", tmp_path / "y",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
