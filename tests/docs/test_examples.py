"""The examples' shell scripts and the manual, as their users run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import LABELS, write_dataset
from environments import linked
from places import ROOT

from ucadi.cli import command_line

SCRIPTS = sorted([*ROOT.glob("examples/*.sh"), *ROOT.glob("examples/paper/*.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_shell(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    sourced = script.name in ("environment.sh", "federation.sh")
    assert os.access(script, os.X_OK) is not sourced
    assert (
        "set -euo pipefail" in script.read_text()
        or script.name == "environment.sh"
        or "federation.sh" in script.read_text()
    )


def test_every_command_has_a_manual_page_with_all_its_options(tmp_path: Path) -> None:
    core = linked(tmp_path / "core")
    subprocess.run([core / "python", "docs/make_man.py", tmp_path], cwd=ROOT, check=True)
    command = command_line(whole=True)
    train = (tmp_path / "man/man1/ucadi-train.1").read_text().replace("\\-", "-")
    for parameter in command.commands["train"].params:  # type: ignore[attr-defined]
        assert any(option in train for option in parameter.opts), parameter.name
    main = (tmp_path / "man/man1/ucadi.1").read_text().replace("\\-", "-")
    for name in command.commands:  # type: ignore[attr-defined]
        assert (tmp_path / f"man/man1/ucadi-{name}.1").exists()
        assert f"ucadi-{name}" in main
    assert (tmp_path / "man/man1/ucadi-round-open.1").exists()
    # what roff would take for a request, were it not escaped
    lines = [line for page in (tmp_path / "man/man1").iterdir() for line in page.read_text().splitlines()]
    assert {line.split()[0] for line in lines if line.startswith((".", "'"))} == {".TH", ".SH", ".PP", ".TP", ".B"}


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_prints_the_pages_without_a_warning(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "docs/make_man.py", tmp_path], cwd=ROOT, check=True)
    shown = subprocess.run(
        ["man", "--warnings", "-l", tmp_path / "man/man1/ucadi-round-open.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    text = re.sub(r"\s+", " ", re.sub(".\b", "", shown.stdout))
    assert "--count-scores-of <str>" in text
    assert "EXIT STATUS" in text


def test_bash_completes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "docs/make_man.py", tmp_path], cwd=ROOT, check=True)
    script = (
        f"source {tmp_path}/completion/ucadi.bash; COMP_WORDS=(ucadi round o); COMP_CWORD=2; "
        '_ucadi_completion ucadi; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert found.stdout.split() == ["open"], found.stderr


@pytest.mark.slow
def test_the_papers_experiments_on_given_sites(tmp_path: Path) -> None:
    """Two sites that train and one that does not: each experiment ends with its table and its plot."""
    sites = tmp_path / f"sites-{os.getpid()}"
    sites.mkdir()
    for number, site in enumerate(("a", "b")):
        write_dataset(sites / f"train-{site}.h5", LABELS * 3, first=100 * number)
    for number, site in enumerate(("a", "b", "c"), start=2):
        write_dataset(sites / f"test-{site}.h5", LABELS * 2, first=100 * number)
    settings = {"EPOCHS": "2", "WIDTH": "2", "EVERY": "1 2", "WIDTHS": "2 2 2 2", "FOLDS": "3"}
    out = ROOT / "examples/out/paper" / sites.name
    experiments = {
        "local-and-federated": "areas.png",
        "hold-out": "areas.png",
        "cross-domain": "matrix.png",
        "confusion": "matrices.png",
        "synchronise": "synchronise.png",
        "networks": "networks.png",
        "cross-validation": "../folds/areas.png",
    }
    try:
        for experiment, plot in experiments.items():
            ran = subprocess.run(
                [ROOT / f"examples/paper/{experiment}.sh", sites],
                capture_output=True,
                text=True,
                env={**os.environ, **settings},
                timeout=600,
            )
            assert ran.returncode == 0, f"{experiment}: {ran.stderr}"
            assert len(ran.stdout.splitlines()) > 3, experiment
            assert (out / experiment / plot).resolve().read_bytes().startswith(b"\x89PNG"), experiment
    finally:
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.slow
def test_flower_relay_and_files_give_the_same_sums() -> None:
    """A real SuperLink and three SuperNodes on loopback; the script compares the opened sums of every site and way."""
    ran = subprocess.run([ROOT / "examples/flower.sh"], capture_output=True, text=True, timeout=1500)
    assert ran.returncode == 0, ran.stderr
    assert "the same at three sites in three ways" in ran.stderr
    assert len(ran.stdout.splitlines()) == 2


@pytest.mark.slow
def test_two_machines_train_as_one() -> None:
    ran = subprocess.run([ROOT / "examples/several-machines.sh"], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert "of the largest change of a weight" in ran.stdout


def test_the_notebook_runs(tmp_path: Path) -> None:
    cells = json.loads((ROOT / "examples/from_python.ipynb").read_text())["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells), "strip the outputs before it is committed"
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "numbers; SHA-256" in ran.stdout
    assert "exists already - choose another --output" in ran.stdout
