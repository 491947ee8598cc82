"""What is not installed is told before any work, and safely: in environments that lack it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from datasets import LABELS, write_dataset
from environments import linked, needed
from missing import check_that_commands_say_what_is_missing
from packaging.requirements import Requirement
from places import ROOT

from ucadi.commands.init import init
from ucadi.parts import OPTIONAL, Feature, how_to_install


def ucadi(programs: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [programs / "ucadi", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def written_files() -> Iterator[Path]:
    """All that a person has written in the repository: code, pages, scripts."""
    folders = ("docs", "examples", "tests", "ucadi", ".ci")
    for path in [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]:
        kinds = (".py", ".md", ".sh", ".toml", ".html", ".js", ".smk", ".cff", "")
        if path.suffix in kinds and path.is_file() and ROOT / "examples/out" not in path.parents:
            yield path


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(tmp_path_factory.mktemp("core"))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(tmp_path_factory.mktemp("hospital"), "learn")


def test_every_command_says_what_is_missing_before_it_reads_anything(core: Path, tmp_path: Path) -> None:
    check_that_commands_say_what_is_missing(core, tmp_path)


def test_options_are_checked_before_the_work(hospital: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data.h5", LABELS)
    base, recipe = tmp_path / "base.weights", tmp_path / "private.toml"
    init(output=base, width=2, size=16, norm="group")
    recipe.write_text("noise = 1.0\nclip_norm = 1.0\n")
    training = ("train", data, "--base", base, "--site", "north", "--set", "total_epochs=1")
    training = (*training, "--set", "warmup_epochs=0", "-o", "north.update")
    page = ("serve", "--model", base)
    for arguments, missing in {
        (*training, "--recipe", recipe): "'dp-accounting>=0.5'",
        (*training, "--tensorboard", "board"): "'tensorboard>=2.18'",
        ("export", base, "-o", "a.onnx"): "'onnx>=1.18' 'onnxscript>=0.5' 'onnxruntime>=1.22'",
        ("gradcam", data, "--model", base, "--case", "0", "--dicom", "ct", "-o", "map"): "'highdicom>=0.28'",
        ("pacs", "pull", "dicom://PACS@127.0.0.1:104", "-o", "ct"): "'pynetdicom>=3.0'",
        ("pacs", "push", "https://127.0.0.1/web", data): "'dicomweb-client>=0.60' 'requests>=2.32'",
        page: "'starlette>=1.0' 'uvicorn>=0.40' 'highdicom>=0.28'",
    }.items():
        before = files_below(tmp_path)
        result = ucadi(hospital, tmp_path, *arguments)
        assert result.returncode == 2, result.stderr
        assert result.stderr.splitlines()[1:] == [f"ucadi: hint: pip install {missing}"]
        assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (("evaluate", "no.predictions", "--report", "report"), "matplotlib"),
        (("train", "no.h5", "--base", "b", "--site", "a", "-o", "u", "--log", "log"), "matplotlib"),
        (("evaluate", "no.predictions", "--dataset", "no.h5"), "h5py"),
        (("translate", "evaluate", "no", "no", "no", "--sheet", "sheet.png"), "matplotlib"),
        (("translate", "train", "no", "no", "-o", "t", "--samples", "sheets"), "matplotlib"),
        (("preprocess", "no", "--unlabelled", "-o", "d.h5", "--report", "report"), "pillow"),
    ],
)
def test_one_library_that_an_option_needs(tmp_path: Path, arguments: tuple[str, ...], without: str) -> None:
    programs, folder = linked(tmp_path / "environment", "learn", without={without}), tmp_path / "work"
    folder.mkdir()
    result = ucadi(programs, folder, *arguments)
    assert result.returncode == 2
    assert f"pip install '{without}>=" in result.stderr
    assert files_below(folder) == set()


def test_what_does_without_a_library_says_so_first(hospital: Path, tmp_path: Path) -> None:
    """Decoders of old archives, and OpenVINO: the work is done, and the note stands before it."""
    data, base = write_dataset(tmp_path / "data.h5", LABELS), tmp_path / "base.weights"
    init(output=base, width=2, size=16)
    result = ucadi(hospital, tmp_path, "predict", data, "--model", base, "--fast", "-o", "p.predictions")
    assert result.returncode == 0
    assert "pip install 'openvino>=" in result.stderr.splitlines()[0]
    scans = ("phantom", "ct", "--patients", "1", "--matrix", "64", "--slices", "40", "--workers", "1")
    assert ucadi(hospital, tmp_path, *scans).returncode == 0
    result = ucadi(hospital, tmp_path, "preprocess", "ct", "--unlabelled", "--size", "16", "-o", "ct.h5")
    assert result.returncode == 0
    assert "pip install 'imagecodecs>=" in result.stderr.splitlines()[0]


def test_each_optional_library_stands_in_the_metadata() -> None:
    """So every hint has a range of versions, and some extra brings the library."""
    hinted = re.findall("'([^']+)'", how_to_install(sorted(OPTIONAL)))
    assert len(hinted) == len(OPTIONAL)
    assert all(Requirement(line).specifier for line in hinted)
    extras = metadata.metadata("ucadi").get_all("Provides-Extra") or []
    brought = needed("ucadi", [extra for extra in extras if extra not in ("benchmark", "flower", "peers")])
    assert {Requirement(line).name for line in hinted} <= brought
    assert not [feature for feature in Feature if feature.missing], "the tests' environment has all of them"


def test_no_hint_and_no_page_installs_a_name_that_is_not_ours() -> None:
    """On a public index the name ucadi may be anybody's: it is installed from its folder or from a file."""
    by_name = re.compile(r"(pip|uv|pipx)3? (-\S+ )*(install|add|download)\b[^\n#`]*?[\s'\"]ucadi(?![\w/.-])")
    with_extras = re.compile(r"\bucadi\[")
    own = {ROOT / "pyproject.toml", Path(__file__), ROOT / "examples/airgap-bundle.sh"}
    for path in written_files():
        text = path.read_text()
        assert not by_name.search(text), path
        assert path in own or not with_extras.search(text), path
