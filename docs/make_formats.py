"""Writes the tables of docs/formats that list kinds of files, from `ucadi.kinds`.

A table stands between `<!-- table: docs/make_formats.py NAME -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ucadi.kinds import FIRST_ROSTER, Form, Format, Kind, Maker

PAGES = Path(__file__).parent / "formats"

Row = tuple[str, ...]


def formats(*forms: Form) -> Iterator[Row]:
    """The formats of these forms."""
    yield "format", "version", "what it is", "made by", "signed by", "read by"
    for one in Format:
        if one.form in forms:
            signer = ("its maker" if one.maker is Maker.ANYONE else f"the {one.maker}") if one.signed else "nobody"
            yield f"`{one.id}`", ", ".join(map(str, one.versions)), one.words, one.made_by, signer, one.access


def places() -> Iterator[Row]:
    """What travels, by its name in the exchange directory."""
    yield "path", "made by", "format", "what it is", "brought to sites by a courier"
    yield (
        f"`{FIRST_ROSTER}`",
        Kind.ROSTER.maker,
        f"`{Kind.ROSTER.format.id}`",
        "the first roster",
        Kind.ROSTER.carried.value,
    )
    for kind in Kind:
        yield f"`{_name(kind)}`", kind.maker, f"`{kind.format.id}`", kind.words, kind.carried.value


def names() -> Iterator[Row]:
    """What the relay takes, from whom, and whom it gives it to."""
    yield "file", "who may put it", "who gets it"
    yield f"`{FIRST_ROSTER}`", _putter(Kind.ROSTER), Kind.ROSTER.readers
    for kind in Kind:
        yield f"`{_name(kind)}`", _putter(kind), kind.readers


TABLES: dict[str, Callable[[], Iterable[Row]]] = {
    "containers": lambda: formats(Form.CONTAINER),
    "documents": lambda: formats(Form.DOCUMENT),
    "other files": lambda: formats(Form.ARCHIVE, Form.HDF5, Form.LINES),
    "places": places,
    "names": names,
}


def _name(kind: Kind) -> str:
    return kind.pattern.replace("{number:04}", "NNNN").replace("{site}", "SITE")


def _putter(kind: Kind) -> str:
    if kind.maker is Maker.COORDINATOR:
        return "the coordinator"
    return f"that site, if `{_name(Kind.PLAN)}` is there"


def _table(name: str) -> str:
    head, *rows = TABLES[name]()
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def page(text: str) -> str:
    """The page with its tables made anew."""
    return re.sub(
        r"(<!-- table: docs/make_formats\.py ([a-z ]+) -->\n\n).*?(\n<!-- end of table -->)",
        lambda found: found[1] + _table(found[2]) + found[3],
        text,
        flags=re.S,
    )


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(page(path.read_text()))
