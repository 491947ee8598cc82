"""The exchange directory: where each file of a federation lies.

Every file in it is immutable and has one place, which follows from what it is, its round and its site. The
relay, a shared folder and a courier's file move the same names, those of `ucadi.kinds`. A name that `Place.parse` does
not know is not part of the exchange. `docs/formats/exchange.md` is the normative text.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ucadi import filetypes
from ucadi.errors import FormatError, MismatchError, OutputError
from ucadi.files import make_folder, writing
from ucadi.formats.container import file_digest
from ucadi.formats.plan import FORMAT as PLAN_FORMAT
from ucadi.formats.signed import Fields, read_document
from ucadi.kinds import DEPTH, Kind, Place


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
        with writing(path):
            for folder in reversed(path.relative_to(self.root).parents[:-1]):
                make_way(self.root / folder, stat.S_ISDIR)
                make_folder(self.root / folder)
            make_way(path)
        return path

    def clear_place(self, kind: Kind, number: int, site: str = "") -> Path:
        """As `make_place`, but whatever lies in the place is moved aside, whoever put it there."""
        path = self.make_place(kind, number, site)
        make_way(path, lambda _: False)
        return path

    def plan(self, number: int) -> Path:
        """The signed plan of a round."""
        return self.path(Kind.PLAN, number)

    def sum(self, number: int) -> Path:
        """The sum of a round's uploads."""
        return self.path(Kind.SUM, number)

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
        found = (Place.parse(name) for name in _regular_files(self.root, depth=0))
        return [
            self.path(Kind.ROSTER, number)
            for number in sorted(place.number for place in found if place and place.kind is Kind.ROSTER)
        ]

    def newest_roster(self) -> Path:
        """The roster for what is opened from now on; the place of the first one, where there is none."""
        return (self.rosters() or [self.path(Kind.ROSTER, 0)])[-1]

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
    except OSError:  # also where this machine may not look
        return 0


def _is_regular(root: Path, name: str) -> bool:
    folders = [root / folder for folder in Path(name).parents[:-1]]
    return all(stat.S_ISDIR(_mode(folder)) for folder in folders) and stat.S_ISREG(_mode(root / name))


def make_way(path: Path, is_fit: Callable[[int], bool] = stat.S_ISREG) -> None:
    """Renames what lies there, unless it is of a fit kind, to a hidden name, which is not part of the layout."""
    mode = _mode(path)
    if mode and not is_fit(mode):
        try:
            path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}.aside"))
        except OSError as error:
            raise OutputError.of(path, error, hint=f"move it away: what {path.name} should be belongs there") from None


def _regular_files(root: Path, below: str = "", depth: int = DEPTH) -> Iterator[str]:
    """Paths of the regular files under `root`, that many folders deep. Hidden folders hold what is unfinished, and
    those that may not be looked into nothing."""
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        if below:
            return
        raise FormatError(f"{root}: {error.strerror}", hint="an exchange directory is wanted here") from None
    else:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_file(follow_symlinks=False):
                yield name
            elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and depth:
                yield from _regular_files(root, f"{name}/", depth - 1)
