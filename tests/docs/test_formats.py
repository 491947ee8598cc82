"""The pages of docs/formats against what is written: their tables of kinds, and each format's fields and tensors."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import make_federation
from fuzz_targets import MODEL, OTHER, make_targets
from places import ROOT
from surveys import surveyor

from ucadi.commands.inspect import inspect_file
from ucadi.commands.keygen import keygen
from ucadi.commands.round_open import round_open
from ucadi.errors import FormatError
from ucadi.fed.averaging import Aggregate
from ucadi.fed.update import Privacy, Update
from ucadi.formats import container, histogram, update
from ucadi.formats.histogram import Histogram
from ucadi.kinds import Form, Format

MAKER = runpy.run_path(str(ROOT / "docs/make_formats.py"))
"""What makes the tables."""

PAGES = sorted((ROOT / "docs/formats").glob("*.md"))

NESTED = {"privacy", "policy", "server"}
"""Objects whose entries are fields of the format, too."""

OWN_TENSORS = {Format.WEIGHTS, Format.UPDATE, Format.TRANSLATOR}
"""Formats whose tensors are a network's."""

Written = dict[Format, tuple[set[str], set[str], set[str]]]
"""Of each format its fields, its tensors, and all keys and words anywhere in it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, with all that they can hold."""
    folder = tmp_path_factory.mktemp("formats")
    with surveyor() as running:
        make_targets(folder, running)
    arrays = {"a.weight": np.ones((2, 3), np.float32)}
    private = Update("site-a", MODEL, 1, 1, arrays, Privacy(1.0, 1e-5, 1.0, 1.0), OTHER)
    update.write_update(folder / "private.update", private)
    for rule in ("median", "trimmed-mean", "krum"):
        robust = Aggregate(MODEL, OTHER, ("site-a", "site-b"), np.ones(3, np.int32), rule)
        update.write_aggregate(folder / f"{rule}.aggregate", robust)
    added = Histogram(MODEL, (), np.ones((2, 8), np.int64), ("site-a", "site-b"))
    histogram.write(folder / "added.histogram", added)
    (folder / "again").mkdir()
    federation = make_federation(folder / "again")
    (folder / "new").mkdir()
    keygen("site-a", output=folder / "new", replaces=federation.key("site-a"))
    (folder / "server.toml").write_text('[server]\nmethod = "fedadam"\n')
    round_open(
        number=1,
        base=federation.base,
        roster=federation.roster,
        key=federation.key("coordinator"),
        recipe=folder / "server.toml",
        output=folder / "server.plan",
    )
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> Written:
    found: Written = {}
    for path in sorted(folder.rglob("*")):
        for values, tensors in _read(path):
            kind = Format.of(str(values.get("format")))
            assert kind is not None, path
            fields, names, words = found.setdefault(kind, (set(), set(), set()))
            fields |= values.keys() - {"format", "version", "signature"}
            for inner in NESTED & values.keys():
                fields |= values[inner].keys() if isinstance(values[inner], dict) else set()
            names |= {name.partition("/")[0] + "/" if "/" in name else name for name in tensors}
            words |= set(_words(values))
    return found


def _read(path: Path) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """The fields and the names of the tensors of a document or a container; nothing of other files."""
    start = path.read_bytes()[: 1 << 20] if path.is_file() and path.parent.name != "exchange" else b""
    if path.suffix == ".ledger":
        lines = [json.loads(line) for line in start.splitlines()]
        yield {key: value for line in lines for key, value in line.items()}, set()
    elif start.startswith(b'{"') and b'"format":"ucadi-' in start:
        yield json.loads(start), set()
    elif start[8:10] == b'{"' and b"ucadi" in start:
        held = container.read(path)
        yield held.metadata, set(held.tensors)
    elif start.startswith(b"manifest.json\0"):
        size = int(start[124:135], 8)
        yield json.loads(start[512 : 512 + size]), set()


def _words(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield key
                yield from _words(inner)
        case list():
            for inner in value:
                yield from _words(inner)
        case str():
            yield value


def _described(kind: Format) -> str:
    """What the pages say of a format: its row of a table, paragraphs that name it, sections that it heads."""
    named = f"`{kind.id}`"
    said = []
    for page in PAGES:
        text = re.sub(r"<!-- table: .*?<!-- end of table -->", "", page.read_text(), flags=re.S)
        for section in re.split(r"^(?=#)", text, flags=re.M):
            if named in section.partition("\n")[0]:
                said.append(section)
                continue
            for block in section.split("\n\n"):
                rows = [line for line in block.splitlines() if line.startswith(f"| {named} |")]
                said += rows or ([block] if named in block else [])
    return "\n".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_code(page: Path) -> None:
    assert page.read_text() == MAKER["page"](page.read_text()), f"{page.name} is stale: python docs/make_formats.py"


def test_every_table_is_in_a_page() -> None:
    marks = (re.findall(r"table: docs/make_formats\.py ([a-z ]+) -->", page.read_text()) for page in PAGES)
    assert sorted(name for found in marks for name in found) == sorted(MAKER["TABLES"])


@pytest.mark.parametrize("kind", [kind for kind in Format if kind.form is not Form.HDF5], ids=lambda kind: kind.id)
def test_a_page_names_every_field_and_tensor_of_a_format(kind: Format, written: Written) -> None:
    fields, tensors, _ = written[kind]
    named = set(re.findall(r"`([^`]+)`", _described(kind)))
    assert fields <= named
    assert kind in OWN_TENSORS or tensors <= named


def test_a_page_names_no_field_that_nothing_has(written: Written) -> None:
    """In the table of containers, whose rows hold nothing else; what `origin` holds differs from command to command."""
    rows = re.findall(r"^\| `(ucadi-[a-z-]+)` \| .* \| (.*) \|$", _described_containers(), re.M)
    assert len(rows) == sum(kind.form is Form.CONTAINER for kind in Format)
    for id, said in rows:
        kind = Format.of(id)
        assert kind is not None
        named = re.findall(r"`([^`]+)`", said.partition("`origin`")[0])
        assert set(named) <= written[kind][2], id


def _described_containers() -> str:
    text = (ROOT / "docs/formats/container.md").read_text()
    return text[text.index("Metadata hold") : text.index("Digests are")]


def test_inspect_tells_every_kind(folder: Path) -> None:
    told = set()
    for path in sorted(folder.rglob("*")):
        try:
            told.add(inspect_file(path).format)
        except FormatError:
            assert not list(_read(path)), path
    assert told == {"a site's policy", *(kind.id for kind in Format)}
