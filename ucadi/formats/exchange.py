"""The exchange directory: where each file of a federation lies, and which names there are at all.

Every file in it is immutable and has one place, which follows from what it is, its round and its site. The
relay, a shared folder and a courier's file move the same names. A name that `Place.parse` does not know is
not part of the exchange. `docs/formats/exchange.md` is the normative text.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ucadi import filetypes
from ucadi.errors import FormatError, MismatchError
from ucadi.formats.container import file_digest
from ucadi.formats.plan import FORMAT as PLAN_FORMAT
from ucadi.formats.signed import Fields, read_document


class Kind(StrEnum):
    """What a file is. The first six are the coordinator's to make, the others each site's own."""

    ROSTER = "roster"
    PLAN = "plan"
    AGGREGATE = "aggregate"
    RECEIPT = "receipt"
    TIMES = "times"
    MODEL = "model"
    UPLOAD = "upload"
    PARTIAL = "partial"
    METRICS = "metrics"
    OPENED = "opened"
    HANDOVER = "handover"


BY_SITES = (Kind.UPLOAD, Kind.PARTIAL, Kind.METRICS, Kind.OPENED, Kind.HANDOVER)
"""The kinds that sites make; there is one of each for every site and round."""

_NAMES = {
    Kind.ROSTER: "federation-{number:04}.json",
    Kind.PLAN: "rounds/{number:04}/plan.json",
    Kind.AGGREGATE: "rounds/{number:04}/aggregate.enc",
    Kind.RECEIPT: "rounds/{number:04}/receipt.json",
    Kind.TIMES: "rounds/{number:04}/times.json",
    Kind.MODEL: "models/{number:04}.weights",
    Kind.UPLOAD: "rounds/{number:04}/uploads/{site}.enc",
    Kind.PARTIAL: "rounds/{number:04}/partials/{site}.partial",
    Kind.METRICS: "rounds/{number:04}/metrics/{site}.json",
    Kind.OPENED: "rounds/{number:04}/opened/{site}.aggregate",
    Kind.HANDOVER: "rounds/{number:04}/handover/{site}.sealed",
}

_FIRST_ROSTER = "federation.json"

_NUMBER = "(?P<number>[0-9]{4})"
_SITE = "(?P<site>[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?)"
_PATTERNS = {
    kind: re.compile(re.escape(name).replace(r"\{number:04\}", _NUMBER).replace(r"\{site\}", _SITE))
    for kind, name in _NAMES.items()
}


@dataclass(frozen=True)
class Place:
    """Where a file lies: its kind, its round, and its site if sites make it.

    Rosters are numbered in their order, the first with 0. A model's number is that of the round that begins with it.
    """

    kind: Kind
    number: int
    site: str = ""

    @property
    def name(self) -> str:
        """The file's path within the exchange directory."""
        if self.kind is Kind.ROSTER and self.number == 0:
            return _FIRST_ROSTER
        return _NAMES[self.kind].format(number=self.number, site=self.site)

    @classmethod
    def parse(cls, name: str) -> Place | None:
        """The place of that name; None if the exchange directory has no such file."""
        if name == _FIRST_ROSTER:
            return cls(Kind.ROSTER, 0)
        for kind, pattern in _PATTERNS.items():
            match = pattern.fullmatch(name)
            if match and int(match["number"]) >= 1:
                return cls(kind, int(match["number"]), match.groupdict().get("site", ""))
        return None


@dataclass(frozen=True)
class Exchange:
    """An exchange directory."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise FormatError(filetypes.no_folder(self.root, "an exchange directory"), hint="is the path right?")

    def path(self, kind: Kind, number: int, site: str = "") -> Path:
        """Where a file lies, whether it is there or not."""
        return self.root / Place(kind, number, site).name

    def has(self, kind: Kind, number: int, site: str = "") -> bool:
        """Whether a file lies in that place: a regular one, with no link on the way to it."""
        return _is_regular(self.root, Place(kind, number, site).name)

    def make_place(self, kind: Kind, number: int, site: str = "") -> Path:
        """A file's path, for its maker to write to: its folders are there, and what may not lie in the way, such as a
        link or a pipe, is moved aside under a hidden name."""
        path = self.path(kind, number, site)
        for folder in reversed(path.relative_to(self.root).parents[:-1]):
            make_way(self.root / folder, stat.S_ISDIR)
            (self.root / folder).mkdir(exist_ok=True)
        make_way(path)
        return path

    def plan(self, number: int) -> Path:
        """The signed plan of a round."""
        return self.path(Kind.PLAN, number)

    def aggregate(self, number: int) -> Path:
        """The sum of a round's uploads."""
        return self.path(Kind.AGGREGATE, number)

    def receipt(self, number: int) -> Path:
        """The signed receipt of a round."""
        return self.path(Kind.RECEIPT, number)

    def model(self, number: int) -> Path:
        """The weights that a round begins with."""
        return self.path(Kind.MODEL, number)

    def uploads(self, number: int) -> Path:
        """The folder of a round's uploads."""
        return self.path(Kind.UPLOAD, number, "-").parent

    def rosters(self) -> list[Path]:
        """The rosters, from the first to the newest."""
        return [self.root / place.name for place in sorted(self.places(Kind.ROSTER), key=lambda place: place.number)]

    def roster(self, number: int) -> Path:
        """The roster of a round: the one that its plan names by digest. Signatures are not looked at here."""
        plan = self.plan(number)
        digest = Fields(read_document(plan, PLAN_FORMAT), plan.name).digest("roster")
        for path in self.rosters():
            if file_digest(path) == digest:
                return path
        raise MismatchError(
            f"{plan}: made for roster {digest[:8]}…, which is not here", hint="bring all rosters of the federation"
        )

    def places(self, kind: Kind | None = None, number: int | None = None) -> list[Place]:
        """The files that are here, in order of name; of one kind or round only, where given.

        Links, and files whose name is not of the layout, are not part of the exchange and never seen.
        """
        found = (Place.parse(name) for name in sorted(_regular_files(self.root)))
        return [
            place
            for place in found
            if place is not None and kind in (None, place.kind) and number in (None, place.number)
        ]

    def rounds(self) -> list[int]:
        """The rounds that have been opened, in order."""
        return sorted(place.number for place in self.places(Kind.PLAN))

    def opened_rounds(self) -> list[int]:
        """The same; MismatchError if there is none, as in a folder that is no exchange directory at all."""
        numbers = self.rounds()
        if not numbers:
            raise MismatchError(
                f"{self.root}: no round is open in it",
                hint="is it the exchange directory? ucadi round open --exchange DIR opens the first round",
            )
        return numbers


def _mode(path: Path) -> int:
    """What lies there, without following links: a `st_mode`, 0 if there is nothing."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_regular(root: Path, name: str) -> bool:
    folders = [root / folder for folder in Path(name).parents[:-1]]
    return all(stat.S_ISDIR(_mode(folder)) for folder in folders) and stat.S_ISREG(_mode(root / name))


def make_way(path: Path, is_fit: Callable[[int], bool] = stat.S_ISREG) -> None:
    """Renames what lies there, unless it is of a fit kind, to a hidden name, which is not part of the layout."""
    mode = _mode(path)
    if mode and not is_fit(mode):
        path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}.aside"))


def _regular_files(root: Path, below: str = "") -> Iterator[str]:
    """Paths of the regular files under `root`. Layout is shallow, and hidden folders hold what is unfinished."""
    with os.scandir(root / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_file(follow_symlinks=False):
                yield name
            elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and name.count("/") < 3:
                yield from _regular_files(root, f"{name}/")
