"""The rulebook of kinds: relay and exchange directory admit the same names, and a new kind is a row and a module."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from relays import Relayed, make_relayed

from ucadi.identity import check_name
from ucadi.kinds import SITE, Format, Kind, Maker, Place, Readers, is_folder
from ucadi.relay.protocol import Code, Entries, List, Peer, Put, RefusalError, encode, is_name, parse, parse_entries

SITES = st.from_regex(SITE, fullmatch=True)
PLACES = st.builds(
    lambda kind, number, site: Place(kind, number, site if kind.maker is Maker.SITE else ""),
    st.sampled_from(Kind),
    st.integers(1, 9999),
    SITES,
)
STEPS = st.sampled_from(
    sorted({step for kind in Kind for step in kind.pattern.format(number=1, site="site-a").split("/")})
)
"""What names are made of, to be put together anew."""


@st.composite
def names(draw: st.DrawFn) -> str:
    """Names of the exchange, names that are one change away from them, and their steps in any order."""
    if draw(st.booleans()):
        return "/".join(draw(st.lists(STEPS, max_size=5)))
    name = draw(PLACES).name
    begin = draw(st.integers(0, len(name)))
    end = draw(st.integers(begin, min(begin + 3, len(name))))
    return name[:begin] + draw(st.text(max_size=3) | st.sampled_from(["/", ".", "0000", ".enc", "site-a"])) + name[end:]


def admits(name: str) -> bool:
    """Whether the relay takes a request to put a file of that name."""
    try:
        parse([memoryview(frame) for frame in encode(Put(1, name, 0, "0" * 64))])
    except RefusalError as refusal:
        return refusal.code != Code.MALFORMED
    return True


@given(names())
def test_the_relay_admits_a_name_if_and_only_if_it_is_a_place(name: str) -> None:
    place = Place.parse(name)
    assert admits(name) == is_name(name) == (place is not None)
    peers = [Peer(site, leads) for site in ("site-a", place.site if place else "b") for leads in (True, False)]
    assert place is not None or not any(peer.may_put(name) or peer.may_get(name) for peer in peers)


@given(PLACES, SITES)
def test_a_place_is_its_makers_and_its_readers(place: Place, other: str) -> None:
    assert Place.parse(place.name) == place
    parts = place.name.split("/")
    assert all(is_folder("/".join(parts[:depth])) for depth in range(len(parts)))
    coordinator, stranger = Peer("coordinator", coordinator=True), Peer(other, coordinator=False)
    assert coordinator.may_put(place.name) == (place.kind.maker is Maker.COORDINATOR)
    assert coordinator.may_get(place.name)
    assert stranger.may_put(place.name) == (place.site == other)
    assert stranger.may_get(place.name) == (place.kind.readers is Readers.ALL or place.site == other)
    if place.site:
        check_name(place.site)
        assert Peer(place.site, coordinator=False).may_get(place.name)


def test_names_and_formats_are_told_apart() -> None:
    assert len({kind.pattern for kind in Kind}) == len(Kind)
    assert len({kind.id for kind in Format}) == len({kind.words for kind in Format}) == len(Format)
    assert not [kind for kind in Kind if kind.maker not in (kind.format.maker, Maker.COORDINATOR, Maker.SITE)]
    assert {kind for kind in Kind if kind.readers is Readers.COORDINATOR} == {Kind.UPLOAD}


# --- a new kind, in a copy of the program ---------------------------------------------------------------------

FORMAT_ROW = """
    NOTE = ("ucadi-note", Form.DOCUMENT, Maker.SITE, True, "a note", "note")
"""
KIND_ROW = """
    NOTE = (
        "rounds/{number:04}/notes/{site}.note",
        Format.NOTE,
        Readers.COORDINATOR,
        Carried.NEVER,
        "what it has to say",
    )
"""
MODULE = """
from ucadi.formats.signed import sign, write_document
from ucadi.kinds import Format


def write(path, text, keys):
    write_document(path, sign({**Format.NOTE.head, "site": keys.name, "text": text}, keys))
"""
USE = """
import json, sys
from pathlib import Path
from ucadi.commands.courier import courier_pack
from ucadi.commands.inspect import inspect_file
from ucadi.commands.pull import pull
from ucadi.commands.push import push
from ucadi.formats import keys, note
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind
folder, address = Path(sys.argv[1]), sys.argv[2]
mine, theirs = Exchange(folder / "mine"), Exchange(folder / "theirs")
line = {"relay": address, "relay_card": folder / "relay.card"}
path = mine.make_place(Kind.NOTE, 1, "site-a")
note.write(path, "all is well", keys.read_key(folder / "site-a.key"))
said = inspect_file(path)
told = {
    "sent": push(exchange=mine.root, key=folder / "site-a.key", **line).sent,
    "others": pull(exchange=theirs.root, key=folder / "site-b.key", **line).fetched,
    "leader": pull(exchange=theirs.root, key=folder / "coordinator.key", **line).fetched,
    "places": [place.name for place in theirs.places(Kind.NOTE)],
    "carried": courier_pack(mine.root, receiver="coordinator", output=folder / "parcel").files,
    "inspected": [said.format, said.facts],
}
print(json.dumps(told))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the program with a kind more, for which two of its files differ from this one's."""
    tree = tmp_path / "tree"
    for part in ("ucadi", "docs"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "static"))
    path = tree / "ucadi/kinds.py"
    text = path.read_text()
    for row, before in ((FORMAT_ROW, r'\n    KEY = \(\s*"ucadi-key"'), (KIND_ROW, r'\n    ROSTER = \(\s*"federation-')):
        text, count = re.subn(f"(?={before})", lambda _, row=row: row, text)
        assert count == 1
    path.write_text(text)
    (tree / "ucadi/formats/note.py").write_text(MODULE)
    return tree


@pytest.fixture
def relayed(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relayed]:
    """A relay of the copy."""
    folder = tmp_path / "federation"
    folder.mkdir()
    relayed = make_relayed(folder)
    for name in ("mine", "theirs"):
        shutil.copytree(relayed.exchange, folder / name)
    monkeypatch.chdir(tree)  # where Python looks first for what it is told with -c
    monkeypatch.setenv("PYTHONPATH", str(tree))
    relayed.start()
    yield relayed
    relayed.process.kill()


def test_a_new_kind_is_a_row_and_a_module(tree: Path, relayed: Relayed) -> None:
    name = "rounds/0001/notes/site-a.note"
    command = [sys.executable, "-c", USE, relayed.folder, relayed.address]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "sent": [name],
        "others": [],
        "leader": [name],
        "places": [name],
        "carried": [name],
        "inspected": ["ucadi-note", {"site": "site-a", "text": "all is well"}],
    }
    subprocess.run([sys.executable, "docs/make_formats.py"], cwd=tree, check=True)
    pages = {page: (tree / "docs/formats" / f"{page}.md").read_text() for page in ("documents", "exchange", "relay")}
    assert "| `ucadi-note` | 1 | a note | note | the site |" in pages["documents"]
    assert "| `rounds/NNNN/notes/SITE.note` | site | `ucadi-note` | what it has to say | never |" in pages["exchange"]
    assert "| `rounds/NNNN/notes/SITE.note` | that site, if " in pages["relay"]


def test_a_kind_that_only_the_relay_knows_is_passed_over(relayed: Relayed) -> None:
    """So a relay can be of a later version than its sites."""
    for name in ("rounds/0001/notes/site-a.note", "rounds/0001/times.json"):
        (relayed.exchange / name).parent.mkdir(exist_ok=True)
        (relayed.exchange / name).write_text("{}")
    with relayed.raw("coordinator") as peer:
        peer.say(List(1, "rounds", ""))
        page = peer.hear()
        assert isinstance(page, Entries)
        assert "rounds/0001/notes/site-a.note" in [name for name, _, _ in parse_entries(page.data)]
    with relayed.client("coordinator") as client:
        assert [entry.name for entry in client.entries("rounds")] == ["rounds/0001/plan.json", "rounds/0001/times.json"]
