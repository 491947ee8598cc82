"""What is handed out: the wheel and the source archive, and what the repository says about itself."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import shellblocks
from missing import check_that_commands_say_what_is_missing
from places import ROOT

from ucadi import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def run(*command: str | Path, cwd: Path) -> str:
    ran = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def environment(folder: Path, *installed: str | Path) -> Path:
    """A fresh environment with these, and the folder of its programs."""
    venv.create(folder, with_pip=True)
    quiet = ("--quiet", "--disable-pip-version-check")
    run(folder / "bin/python", "-m", "pip", "install", *quiet, *installed, cwd=folder)
    return folder / "bin"


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, made of a copy of the repository in a fresh environment."""
    folder = tmp_path_factory.mktemp("built")
    apart = shutil.ignore_patterns(".*", "out", "__pycache__", "*.egg-info", "build")
    copy = shutil.copytree(ROOT, folder / "repository", ignore=apart)
    programs = environment(folder / "tools", *PROJECT["build-system"]["requires"])
    for kind in ("sdist", "wheel"):
        made = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
        run(programs / "python", "-c", made, cwd=copy)
    return folder


def links(page: Path) -> Iterator[Path]:
    """The files that a page links to."""
    for target in LINK.findall(page.read_text()):
        yield (page.parent / target).resolve()


@pytest.mark.slow
def test_the_wheel_has_what_the_program_needs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "ucadi").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert str(path.relative_to(ROOT)) in names
    information = f"ucadi-{__version__}.dist-info"
    for name in PROJECT["project"]["license-files"]:
        assert f"{information}/licenses/{name}" in names
    programs = environment(tmp_path / "environment", wheel)
    work = new_folder(tmp_path / "work")
    assert run(programs / "ucadi", "--version", cwd=work) == f"ucadi {__version__}\n"
    check_that_commands_say_what_is_missing(programs, work)


@pytest.mark.slow
def test_the_source_archive_is_the_repository(built: Path, tmp_path: Path) -> None:
    """Its README's and pages' links lead to files in it, it installs, and its installation has the same files."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    for page in [*unpacked.glob("*.md"), *unpacked.rglob("docs/**/*.md")]:
        for target in links(page):
            assert target.exists(), f"{page.name}: {target}"
    programs = environment(tmp_path / "environment", archive)
    site = next((tmp_path / "environment/lib").glob("python*/site-packages"))
    (wheel,) = built.glob("*.whl")
    for name in zipfile.ZipFile(wheel).namelist():
        assert (site / name).exists() or name.endswith("RECORD"), name
    assert run(programs / "ucadi", "--version", cwd=tmp_path) == f"ucadi {__version__}\n"


@pytest.mark.slow
def test_the_readmes_installation_is_a_coordinators_machine(built: Path) -> None:
    """Its block as it stands, in the copy of the repository."""
    (block,) = (b.text for b in shellblocks.blocks((ROOT / "README.md").read_text()) if "-m venv" in b.text)
    run("bash", "-ec", f"{block}\nucadi --version", cwd=built / "repository")
    check_that_commands_say_what_is_missing(built / "repository/.venv/bin", new_folder(built / "work"))


def test_no_page_links_to_what_is_not_there() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in links(page):
            assert target.exists(), f"{page.name}: {target}"


def test_the_licence_is_named_alike_everywhere() -> None:
    licence = PROJECT["project"]["license"]
    assert licence == "Apache-2.0"
    assert f"license: {licence}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert "Apache License 2.0" in (ROOT / "README.md").read_text()


def test_what_is_by_others_comes_with_its_licence() -> None:
    """Of the viewer, everything that its bundle holds is named: packages, codecs, the font."""
    folder = ROOT / "ucadi/web/static/niivue"
    held, licences = (folder / "niivue.umd.js").read_text(), (folder / "LICENSES.txt").read_text()
    for part, sign in {"Blosc": "blosc", "LZ4": "lz4", "Zstandard": "zstd", "Emscripten": "emscripten"}.items():
        assert sign in held.lower()
        assert f"\n{part}, " in licences
    assert "LICENSES.txt" in (ROOT / "NOTICE").read_text()


def test_no_message_names_a_file_that_only_the_repository_has() -> None:
    """Who installs the wheel has no docs, examples or tests: docstrings may name them, messages may not."""
    for path in (ROOT / "ucadi").rglob("*.py"):
        tree = ast.parse(path.read_text())
        explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in explained:
                assert not re.search(r"\b(docs|examples|tests)/[a-z]", node.value), f"{path}: {node.value}"
