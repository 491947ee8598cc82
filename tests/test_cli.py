"""The command line as its users meet it: help, JSON, errors with hints and exit codes, the reference page."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest
from commandline import ucadi
from environments import linked
from federation import make_federation
from places import ROOT


def test_the_reference_page_is_that_of_the_code(tmp_path: Path) -> None:
    generated = subprocess.run(
        [linked(tmp_path) / "python", "docs/make_cli.py", "--print"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "docs/cli.md").read_text()
    assert page == generated.stdout, "docs/cli.md is stale: python docs/make_cli.py"


def test_results_are_text_or_one_line_of_json(tmp_path: Path) -> None:
    text = ucadi("keygen", "site-a", "-o", tmp_path)
    assert text.returncode == 0
    assert "fingerprint" in text.stdout
    (tmp_path / "other").mkdir()
    line = ucadi("keygen", "site-a", "-o", tmp_path / "other", "--json").stdout
    assert line.count("\n") == 1
    assert set(json.loads(line)) == {"key", "card", "ledger", "fingerprint"}


def test_an_error_has_a_hint_and_its_exit_code(tmp_path: Path) -> None:
    result = ucadi("keygen", "Site A", "-o", tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == "ucadi: error: 'Site A' is no name for a site"
    assert result.stderr.splitlines()[1].startswith("ucadi: hint: ")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_usage() -> None:
    assert ucadi("keygen", "a", "--nonsense").returncode == 2
    assert ucadi("nonsense").returncode == 2


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (3, "truncate"),
        (4, "key"),
        (7, "exists"),
    ],
)
def test_exit_codes_of_a_round(tmp_path: Path, code: int, change: str) -> None:
    federation = make_federation(tmp_path)
    federation.encrypt_all()
    key, output = federation.key("coordinator"), tmp_path / "sum.enc"
    if change == "truncate":
        path = federation.ciphertext("site-b")
        path.write_bytes(path.read_bytes()[:-1])
    elif change == "key":
        key = federation.key("site-a")
    else:
        output.write_bytes(b"precious")
    before = sorted(p.name for p in tmp_path.iterdir())
    result = ucadi(
        "aggregate", *federation.ciphertexts, "--plan", federation.plan, "--roster", federation.roster,
        "--key", key, "-o", output,
    )  # fmt: skip
    assert result.returncode == code
    assert "ucadi: error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The kernel refuses to let files grow beyond 1 MB: what a full disk does, as EFBIG instead of ENOSPC."""
    federation = make_federation(tmp_path, shapes={"a": (300_000,)})

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    before = sorted(p.name for p in tmp_path.iterdir())
    result = ucadi(
        "encrypt", federation.update("site-a"), "--plan", federation.plan, "--roster", federation.roster,
        "--key", federation.key("site-a"), "-o", tmp_path / "a.enc", preexec_fn=limit,
    )  # fmt: skip
    assert result.returncode == 7
    assert "make room" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_inspect_knows_every_kind_of_file(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    federation.encrypt_all()
    for path in sorted(path for path in tmp_path.rglob("*") if path.suffix != ".toml" and path.is_file()):
        result = ucadi("inspect", path, "--json")
        assert result.returncode == 0, result.stderr
        told = json.loads(result.stdout)
        assert told["format"].startswith("ucadi-")
        if path.suffix == ".key":
            secrets = json.loads(path.read_text())
            assert secrets["signing"] not in result.stdout
    (tmp_path / "foreign").write_bytes(b"something else entirely")
    assert ucadi("inspect", tmp_path / "foreign").returncode == 3
