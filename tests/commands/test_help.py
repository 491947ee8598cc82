"""What each command's help shows: it fits 80 columns, and its example runs as it stands."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commandline import every_command
from datasets import make_case
from federation import copy_key
from slots import World, make_world

from ucadi.cli import EXAMPLE
from ucadi.commands.keygen import keygen
from ucadi.commands.phantom import phantom
from ucadi.files import file_digest, write_file
from ucadi.formats import dataset as dataset_format

COMMANDS = {" ".join(words): command for words, command in every_command()}

GOES_ON = {"relay serve": "listening", "serve": "listening"}
"""Commands that end when they are stopped, and the word by which they say that they run."""

RELAY = {"push", "pull", "wait"}
ARCHIVE = {"pacs pull", "pacs push"}
LONG = {"demo", "translate train", "translate apply", "translate evaluate", "export", "phantom"}
"""Half a minute or more, with what they need."""

MADE = {"phantom": ["ct"], "split": ["site-a.split"], "translate divide": ["contrast.h5", "noncontrast.h5"]}
"""What a command makes that is not its --output."""


def example(command: str) -> str:
    """The command line at the end of a command's help."""
    epilog = COMMANDS[command].epilog
    assert epilog is not None, f"{command} has no example"
    return str(epilog).partition(f"{EXAMPLE}\n")[2].replace("\\\n", " ").strip()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "ct"
    phantom(folder, patients=2, matrix=64, slices=40)
    return folder


@pytest.fixture
def folder(world: World, scans: Path, tmp_path: Path) -> Path:
    """Where somebody stands who types the examples: all files are there, under the names that the examples use."""
    here = tmp_path / "here"
    shutil.copytree(world.files, here)
    shutil.copytree(scans, here / "ct")
    shutil.copy(scans / "labels.csv", here)
    hub = world.hub
    for name in (*hub.sites, "coordinator"):
        copy_key(hub.key(name), here)
    shutil.copytree(hub.exchange, here / "exchange")
    keygen("relay", output=here)
    for name in ("site-a.h5", "old.h5", "contrast.h5"):
        shutil.copy(here / "test.h5", here / name)
    for name in ("noncontrast.h5", "real.h5"):
        shutil.copy(here / "other.h5", here / name)
    new = [replace(make_case(10**6 + n), series_digest=f"{n:064x}") for n in range(4)]
    dataset_format.write(here / "new.h5", new, [], size=16)
    shutil.copy(here / "made.h5", here / "translated.h5")
    write_file(here / "site-a.passphrase", b"correct horse battery staple\n", mode=0o600)
    (here / "site-a.work").mkdir()
    (here / "heatmap/dicom").mkdir(parents=True)
    shutil.copy(next((here / "ct").rglob("*.dcm")), here / "heatmap/dicom")
    return here


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_eighty_columns_and_ends_with_an_example(command: str) -> None:
    shown = run(Path.cwd(), f"ucadi {command} --help")
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    lines = shown.stdout.rstrip().splitlines()
    assert lines[-1].strip().removesuffix("\\").strip() in example(command)


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in COMMANDS]
)
def test_the_example_runs(command: str, folder: Path) -> None:
    line = example(command)
    if command in ("roster add", "roster remove", "roster rotate"):  # a federation that members can leave and join
        shutil.copy(folder / "wide.json", folder / "federation.json")
    line = line.replace("$(sha256sum < federation.json)", file_digest(folder / "federation.json"))
    words = shlex.split(line)
    for option in ("-o", "--contrast", "--noncontrast"):
        if option in words:
            remove(folder / words[words.index(option) + 1])
    for name in MADE.get(command, []):
        remove(folder / name)
    line = line.replace("tcp://*:7400", "tcp://127.0.0.1:0").replace("127.0.0.1:8300", "127.0.0.1:0")
    if command in GOES_ON:
        with running(folder, line, GOES_ON[command]):
            return
    if command in RELAY:
        relay = "ucadi relay serve exchange --key relay.key --bind tcp://127.0.0.1:0"
        with running(folder, relay, GOES_ON["relay serve"]) as told:
            address = told.partition("address=")[2].split()[0]
            assert run(folder, line.replace("tcp://relay.example.org:7400", address)).returncode == 0
        return
    if command in ARCHIVE:
        ended = run(folder, line.replace("https://pacs.example.org", "http://127.0.0.1:9"))
        assert ended.returncode == 9, ended.stderr  # all was understood; there is no archive
        return
    ended = run(folder, line)
    assert ended.returncode in ((0, 10) if command in ("audit", "verify") else (0,)), ended.stderr


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def command_of(line: str) -> list[str]:
    program, *words = shlex.split(line)
    assert program == "ucadi"
    return [sys.executable, "-c", "from ucadi.cli import main; main()", *words]


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command_of(line), cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


class running:  # noqa: N801 - it reads as a statement
    """A command that goes on, until it has said this word; then it is stopped. Gives the line with the word."""

    def __init__(self, folder: Path, line: str, word: str) -> None:
        self.log, self.word = folder / "log.txt", word
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command_of(line), cwd=folder, stdout=log, stderr=log)

    def __enter__(self) -> str:
        for _ in range(1200):
            for line in self.log.read_text().splitlines():
                if self.word in line:
                    return line
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(self.log.read_text())

    def __exit__(self, *ended: object) -> None:
        self.process.terminate()
        self.process.wait(120)
