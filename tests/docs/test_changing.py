"""The recipes of docs/changing.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from datasets import LABELS, write_dataset
from federation import make_federation
from places import ROOT
from shellblocks import blocks

from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format

PAGE = (ROOT / "docs/changing.md").read_text()
FILES = {block.said: block.text for block in blocks(PAGE) if block.kind == "file"}
CHANGES = dict(re.findall(r"<!-- change: (\S+) -->\n```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def laboratory(tmp_path: Path) -> Path:
    """A folder on Python's path where the page's package is installed, as pip leaves it."""
    folder = tmp_path / "site-packages"
    information = folder / "mylab-1.0.dist-info"
    information.mkdir(parents=True)
    for name in ("mylab.py", "mylab_networks.py"):
        (folder / name).write_text(FILES[name])
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(points) + "\n")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of all that the recipes touch."""
    folder = tmp_path / "repository"
    for name in ("ucadi", "docs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "vectors"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def change(repository: Path, name: str) -> None:
    """Makes the page's change of a file, whose old lines must stand there once."""
    lines = CHANGES[name].splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    text = (repository / name).read_text()
    assert text.count(old) == 1, f"{name} is no longer as docs/changing.md says"
    (repository / name).write_text(text.replace(old, new))


def program(at: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs ucadi with this folder first on Python's path."""
    command = [sys.executable, "-c", "from ucadi.cli import main; main()", *map(str, arguments)]
    return run(at, command, at.parent)


def run(at: Path, command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(at)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def succeeds(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


def test_a_network_needs_no_fork(laboratory: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data.h5", LABELS * 2)
    base, model = tmp_path / "base.weights", tmp_path / "model.weights"
    succeeds(program(laboratory, "init", "--architecture", "one-convolution", "--size", "16", "-o", base))
    again = tmp_path / "again.weights"
    succeeds(program(laboratory, "init", "--architecture", "one-convolution", "--size", "16", "-o", again))
    assert base.read_bytes() == again.read_bytes()
    once = ("--set", "total_epochs=1", "--set", "warmup_epochs=0", "--set", "batch_size=4")
    succeeds(program(laboratory, "train", data, "--base", base, *once, "-o", model))
    succeeds(program(laboratory, "predict", data, "--model", model, "-o", tmp_path / "p"))
    first = next(iter(weights_format.read(model).arrays))
    succeeds(program(laboratory, "gradcam", data, "--model", model, "--case", f"{0:016x}", "-o", tmp_path / "map"))
    assert first == "classifier.bias"
    missing = program(tmp_path / "elsewhere", "predict", data, "--model", model, "-o", tmp_path / "q")
    assert missing.returncode == 3
    assert "name is 'one-convolution'" in missing.stderr


def test_a_rule_needs_no_fork(laboratory: Path, tmp_path: Path) -> None:
    (tmp_path / "round").mkdir()
    made = make_federation(tmp_path / "round")
    output = tmp_path / "robust.aggregate"
    rule = ("--rule", "without-the-longest", "--max-faulty", "1")
    signed = ("--plan", made.plan, "--roster", made.roster)
    succeeds(program(laboratory, "aggregate", *made.updates, *signed, *rule, "-o", output))
    assert update_format.read_aggregate(output).rule == "without-the-longest"
    unknown = program(tmp_path / "elsewhere", "aggregate", *made.updates, *signed, *rule, "-o", tmp_path / "x")
    assert unknown.returncode == 2
    assert "median, trimmed-mean, krum" in unknown.stderr


def test_a_package_that_cannot_be_loaded_is_named(laboratory: Path, tmp_path: Path) -> None:
    (laboratory / "mylab.py").write_text("raise RuntimeError('not today')\n")
    refused = program(laboratory, "init", "--architecture", "one-convolution", "-o", tmp_path / "x")
    assert refused.returncode == 2
    assert "network one-convolution: mylab cannot be loaded" in refused.stderr
    succeeds(program(laboratory, "init", "--size", "16", "--width", "2", "-o", tmp_path / "x"))


def test_a_hyper_parameter_is_two_changes(repository: Path, tmp_path: Path) -> None:
    for name in ("ucadi/hyperparameters.py", "ucadi/learn/step.py"):
        change(repository, name)
    assert "nesterov = false" in succeeds(program(repository, "train", "--set", "help"))
    succeeds(run(repository, [sys.executable, "docs/make_settings.py"], repository))
    assert "nesterov" in (repository / "docs/training.md").read_text()
    data = write_dataset(tmp_path / "data.h5", LABELS * 2)
    succeeds(program(repository, "init", "--size", "16", "--width", "2", "-o", tmp_path / "base.weights"))
    once = ("--set", "total_epochs=1", "--set", "warmup_epochs=0", "--set", "batch_size=4")
    ways = {}
    for value in ("true", "false"):
        output = tmp_path / f"{value}.weights"
        base = ("--base", tmp_path / "base.weights")
        succeeds(program(repository, "train", data, *base, *once, "--set", f"nesterov={value}", "-o", output))
        ways[value] = weights_format.read(output).arrays
    assert any((ways["true"][name] != array).any() for name, array in ways["false"].items())


def test_a_trap_is_a_row(repository: Path) -> None:
    change(repository, "tests/helpers/traps.py")
    row = ("tests/ct/reading/test_traps.py", "-k", "alone")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *row]
    assert "1 passed" in succeeds(run(repository, command, repository))
