"""What README and docs tell readers to type: every shell block runs as it stands, every command and file exists."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shellblocks
from commandline import every_command
from environments import linked
from places import ROOT

from ucadi.fed.optimisers import ServerOptimiser
from ucadi.formats.schedules import read_recipe
from ucadi.hyperparameters import Recipe

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

EXTRAS = {"core": (), "hospital": ("learn",), "page": ("web",), "archive": ("learn", "heatmaps", "pacs")}
"""The environments that pages speak of, by the extras that they have."""

ENVIRONMENTS = {
    "README.md": ("core", "hospital"),
    "evaluation.md": ("hospital",),
    "heatmaps.md": ("archive",),
    "pacs.md": ("archive",),
    "preprocess.md": ("hospital",),
    "serve.md": ("page",),
    "translate.md": ("hospital",),
}
"""Those of each page; it begins in the first."""

SLOW = {"README.md", "evaluation.md", "pacs.md", "translate.md"}
"""Pages that take a minute or more of processor time."""

NOT_RUN = {
    "README.md: extras=learn . examples/environment.sh": "minutes of downloads",
    "README.md: ./examples/three-sites.sh": "minutes of work; tests/docs/test_examples.py runs the scripts",
    "README.md: python3 -m venv .venv": "needs an index of packages; tests/test_package.py runs it",
    "README.md: pip install '.[learn]'": "where the index has the CUDA build of torch, it is gigabytes",
    "CONTRIBUTING.md: ./tests/run.sh": "it runs the tests",
    "changing.md: ucadi init --architecture": "tests/docs/test_changing.py runs it",
    "changing.md: ucadi train --set help": "tests/docs/test_changing.py runs it",
    "changing.md: python -m pytest": "tests/docs/test_changing.py runs it",
    "install.md: pip install .": "needs an index of packages; as in the README",
    "install.md: examples/airgap-bundle.sh": "minutes of work, and a network",
    "pacs.md: export UCADI_PACS_USER": "needs a hospital's archive; tests/pacs/test_pacs.py does it with Orthanc",
    "pacs.md: ucadi pacs push": "needs a hospital's archive; tests/pacs/test_pacs.py does it with Orthanc",
    "flower.md: flower-supernode": "needs Flower's SuperLink; examples/flower.sh runs it",
    "flower.md: flwr run": "needs Flower's SuperLink; examples/flower.sh runs it",
    "translate.md: ucadi translate train": "days of a GPU at the paper's size; the set-up trains a small translator",
}
"""Every block that no test runs as a page's block, by the page and what it begins with."""

COMMANDS = {" ".join(words): command for words, command in every_command()}
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}

SHELL = re.compile(
    rf"^ {{4}}(ucadi ({'|'.join(sorted({name.partition(' ')[0] for name in COMMANDS}))})|pip|python3?|curl|export|flwr"
    r"|flower-supernode|\.?/?examples/|\.?/?tests/)\b",
    re.MULTILINE,
)
"""A shell block that is indented only."""

OTHERS_OPTIONS = {
    "--all",  # tests/run.sh
    "--quick",  # examples/benchmark-encryption.sh
    "--nproc-per-node",  # torchrun
    "--node-config",  # Flower
    "--require-hashes",  # pip
}


def options_of(command: Any) -> set[str]:
    """All spellings of a command's options."""
    return {"--help"} | {option for p in command.params for option in [*p.opts, *p.secondary_opts]}


@pytest.mark.skipif(not shellblocks.available(), reason="needs namespaces of its own (unshare) and ip")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in PAGES
        if any(part.kind in ("run", "goes on") for part in shellblocks.blocks(page.read_text()))
    ],
)
def test_the_blocks_of_a_page_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    programs = {name: linked(tmp_path / name, *EXTRAS[name]) for name in ENVIRONMENTS[page.name]}
    programs["everything"] = Path(sys.executable).parent
    shellblocks.run(page, tmp_path / "page", programs)


def test_what_is_not_run_is_known() -> None:
    marked = {
        f"{page.name}: {part.text.splitlines()[0]}": part.said
        for page in PAGES
        for part in shellblocks.blocks(page.read_text())
        if part.kind == "not run"
    }
    assert len(marked) == len(NOT_RUN)
    for said, why in NOT_RUN.items():
        assert [reason for begins, reason in marked.items() if begins.startswith(said)] == [why], said


def test_every_shell_block_can_be_recognised() -> None:
    """What a reader types stands in ```sh blocks, which the tests find; indented blocks hold something else."""
    for page in PAGES:
        if page.name == "cli.md":  # made from the code
            continue
        text = page.read_text()
        assert not SHELL.search(text), f"{page.name}: {SHELL.search(text)}"
        assert not re.search(r"^```(bash|shell|console)", text, re.M), page.name
        comments = re.findall(r"<!-- (?!made by|table:|end of table|settings:|end of settings)", text)
        assert len(comments) == len(re.findall(r"<!-- (set-up|goes on|not run|file|change)\b", text)), page.name


@pytest.mark.skipif(not shellblocks.available(), reason="needs namespaces of its own (unshare) and ip")
@pytest.mark.parametrize(
    "page",
    [
        "```sh\nfalse\n```\n",
        "```sh\ntrue\n```\n\n```sh\nno-such-command | cat\n```\n",
        "```sh\necho one\n```\n\n```text\ntwo\n```\n",
        "```sh\necho one\n```\n\n```text\n…on\n```\n",
        "<!-- goes on -->\n```sh\nexit 3\n```\n\n<!-- set-up\nsleep 1\n-->\n",
        "<!-- set-up\nfalse\n-->\n",
    ],
)
def test_a_block_that_fails_fails_its_page(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(AssertionError, match=r"page\.md"):
        shellblocks.run(tmp_path / "page.md", tmp_path / "page", {"core": Path(sys.executable).parent})


def test_blocks_share_a_shell_and_leave_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "<!-- file: a.txt -->\n```csv\na,b\n```\n\n```sh\nhere=$(cat a.txt) && mkdir f && cd f\n```\n"
        "<!-- not run: it would end the test -->\n```sh\nexit 1\n```\n\n"
        "<!-- goes on -->\n```sh\nsleep 86399\n```\n\n```sh\necho $here; ls ..\n```\n\n```text\na,b\na.txt\n…\n```\n"
    )
    shellblocks.run(tmp_path / "page.md", tmp_path / "page", {"core": Path(sys.executable).parent})
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if p.read_bytes() == b"sleep\x0086399\0"]


def test_the_recipe_on_the_page_is_understood(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs/training.md").read_text(), re.M | re.S)
    (tmp_path / "recipe.toml").write_text(text)
    made = read_recipe(tmp_path / "recipe.toml")
    assert made.schedule != Recipe()
    assert made.server != ServerOptimiser()


# --- commands and files that stand within sentences and tables ----------------------------------------


def told(page: Path) -> Iterator[str]:
    """The code in sentences and tables, and the lines of shell blocks."""
    text = page.read_text()
    for part in shellblocks.blocks(text):
        if part.kind in ("run", "goes on", "not run"):
            yield from part.text.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```$|<!--.*?-->", "", text, flags=re.M | re.S)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
        yield " ".join(span.split())


def wrong_with(line: str) -> str | None:
    """What is wrong with a command of ucadi, whether `ucadi` stands before it or not; None for anything else."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    named = words[:1] == ["ucadi"]
    words = words[1:] if named else words
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
    if name is None:
        begins = words[:1]
        known = not begins or begins[0] in GROUPS or begins[0].startswith("--")
        return f"there is no command {' '.join(words[:2])!r}" if named and not known else None
    given = {word.partition("=")[0].rstrip(",") for word in words if re.match(r"--?[a-z]", word)}
    unknown = given - options_of(COMMANDS[name])
    return f"{name} has no {', '.join(sorted(unknown))}" if unknown else None


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: page.name)
def test_every_command_and_option_in_a_page_exists(page: Path) -> None:
    known = {option for command in COMMANDS.values() for option in options_of(command)} | OTHERS_OPTIONS
    known |= {"--version", "--install-completion"}  # of ucadi itself
    for line in told(page):
        for one in re.split(r"\s(?:&&|\|)\s", line):
            assert wrong_with(one) is None, f"{one}: {wrong_with(one)}"
        if line.startswith("--"):
            for option in re.findall(r"--[a-z][a-z-]*", line):
                assert option in known, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_repository_in_a_page_exists(page: Path) -> None:
    for name in re.findall(r"(?<![\w/-])(?:examples|docs|tests)/[\w./-]*\w", page.read_text()):
        assert (ROOT / name).exists() or name.startswith("examples/out/"), f"{page.name}: {name}"
