"""Junk in a shared folder: what strangers put into others' places, before the file that belongs there, stops nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from looping import Hub, make_hub

from ucadi.commands.courier import courier_pack, courier_unpack
from ucadi.formats.exchange import Exchange
from ucadi.formats.signed import read_document
from ucadi.kinds import Kind

JUNK: dict[str, Callable[[Path, Path], object]] = {
    "text": lambda path, _: path.write_text("junk"),
    "empty": lambda path, _: path.touch(),
    "folder": lambda path, _: path.mkdir(),
    "pipe": lambda path, _: os.mkfifo(path),
    "link": lambda path, _: path.symlink_to("/etc/passwd"),
    "loop": lambda path, _: path.symlink_to(path.name),
    "another plan": lambda path, exchange: shutil.copy(exchange / "rounds/0001/plan.json", path),
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return make_hub(tmp_path_factory.mktemp("fresh") / "hub", threshold=2, minimum_sites=3, quorum=3)


@pytest.fixture(scope="module")
def model(fresh: Hub, tmp_path_factory: pytest.TempPathFactory) -> str:
    return fresh.copy(tmp_path_factory.mktemp("undisturbed") / "hub").play()


def places(hub: Hub) -> list[str]:
    """All names that will be written, and some that nobody will write."""
    exchange = Exchange(hub.exchange)
    named = [
        exchange.path(kind, number, site)
        for kind in Kind
        for number in (1, 2)
        for site in (hub.sites if "{site}" in kind.pattern else ("",))
        if kind is not Kind.ROSTER
    ]
    return [path.relative_to(hub.exchange).as_posix() for path in (*named, hub.exchange / "federation-0002.json")]


SLOW = ("empty", "pipe", "link", "loop")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in JUNK]
)
def test_a_federation_comes_to_the_same_model(fresh: Hub, model: str, tmp_path: Path, kind: str) -> None:
    hub = fresh.copy(tmp_path / "hub")
    for name in places(hub):
        path = hub.exchange / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            JUNK[kind](path, hub.exchange)
    assert hub.play() == model
    assert hub.coordinate().missing == {1: (), 2: ()}


CLOSE = """
import os, sys
from pathlib import Path
from ucadi.commands.round_close import round_close
from ucadi.errors import UcadiError
if os.geteuid() == 0:  # who may read everything
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    print(round_close(Path(sys.argv[1]), number=1, key=Path(sys.argv[2])))
except UcadiError as error:
    print(error.message)
"""


def test_what_may_not_be_read_stops_no_closing(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    for site in hub.sites:
        hub.site(site)
    exchange = Exchange(hub.exchange)
    upload = exchange.path(Kind.UPLOAD, 1, "site-c")
    upload.chmod(0o000)
    (hub.exchange / "rounds/0001/partials").mkdir(mode=0o000)
    (hub.exchange / "rounds/0001/.closing").touch(mode=0o000)
    if os.geteuid() == 0:
        hand_over(hub, upload)
    command = [sys.executable, "-c", CLOSE, str(hub.exchange), str(hub.key("coordinator"))]
    closed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (closed.returncode, closed.stderr) == (0, "")
    receipt = read_document(exchange.receipt(1))
    assert receipt["refused"] == {"site-c.enc": "site-c.enc: the coordinator may not read it"}
    assert receipt["missing"] == ["site-c"]


def hand_over(hub: Hub, *kept: Path) -> None:
    """Makes all of it the property of nobody, so that nobody can read and write it; but for what is kept."""
    for path in (hub.folder, *hub.folder.rglob("*")):
        if path not in kept:
            os.chown(path, 65534, 65534, follow_symlinks=False)
    for folder in hub.folder.parents:
        if folder == Path("/tmp"):
            break
        folder.chmod(folder.stat().st_mode | 0o011)


# --- couriers -----------------------------------------------------------------------------------------------


def test_a_courier_without_a_key_places_nothing_and_what_lies_there_gives_way(fresh: Hub, tmp_path: Path) -> None:
    hub = fresh.copy(tmp_path / "hub")
    for site in hub.sites:
        hub.site(site)
    exchange = Exchange(hub.exchange)
    courier_pack(hub.exchange, receiver="coordinator", output=tmp_path / "stick")
    away = tmp_path / "away"
    courier_pack(hub.exchange, receiver="site-a", output=tmp_path / "plan")
    courier_unpack(tmp_path / "plan", away, roster=hub.roster)
    for site in hub.sites:
        place = Exchange(away).make_place(Kind.UPLOAD, 1, site)
        place.write_text("junk")
    unpacked = courier_unpack(tmp_path / "stick", away, roster=hub.roster).unpacked
    uploads = {f"rounds/0001/uploads/{site}.enc" for site in hub.sites}
    assert set(unpacked) == uploads | {"consents/site-a-0001.json"}
    for site in hub.sites:
        honest = exchange.path(Kind.UPLOAD, 1, site)
        assert Exchange(away).path(Kind.UPLOAD, 1, site).read_bytes() == honest.read_bytes()
    assert len(list((away / "rounds/0001/uploads").glob(".*.aside"))) == 3
    # and no junk is packed again
    junk = Exchange(away).clear_place(Kind.UPLOAD, 1, "site-b")
    junk.write_text("junk")
    packed = courier_pack(away, receiver="coordinator", output=tmp_path / "again")
    assert packed.left_out == ("rounds/0001/uploads/site-b.enc",)
    assert "site-b.enc" in str(packed)
