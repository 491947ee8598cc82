"""Admission of plain updates: each is judged by itself and beside the others; a wrong one never stops the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ucadi.errors import CapacityError, UcadiError
from ucadi.fed.averaging import twice
from ucadi.fed.fixedpoint import Encoder
from ucadi.fed.robust import norm
from ucadi.fed.update import Update
from ucadi.files import copy_file, make_folder, write_file
from ucadi.formats import update as update_format
from ucadi.kinds import Format
from ucadi.rounds.contribution import check_belongs
from ucadi.rounds.round import Round


@dataclass(frozen=True)
class Admitted:
    """The updates that may be added, by file, and why the others may not."""

    good: Mapping[Path, Update]
    refused: Mapping[Path, UcadiError]


def admit(paths: Sequence[Path], round_: Round, most: float | None = None, *, clip: bool = False) -> Admitted:
    """Judges files of plain updates: finite, of this round, in its layout and ranges, of a
    weight that it admits, each site once.

    With `most`, an update whose norm is more than so many times the median norm of all is refused too.
    """
    good: dict[Path, Update] = {}
    refused: dict[Path, UcadiError] = {}
    for path in paths:
        try:
            good[path] = _checked(path, round_, clip)
        except UcadiError as error:
            refused[path] = error
    doubled = twice(update.site for update in good.values())
    for path, update in list(good.items()):
        if update.site in doubled:
            del good[path]
            refused[path] = doubled[update.site]
    if most is not None and good:
        norms = {path: norm(update) for path, update in good.items()}
        middle = median(norms.values())
        for path, length in norms.items():
            if length > most * middle:
                site = good.pop(path).site
                refused[path] = CapacityError(
                    f"update of {site}: norm {length:.3g}, more than {most:g} times the median, {middle:.3g}",
                    hint="ask the site what happened; --quarantine FOLDER goes on without it",
                )
    return Admitted(good, refused)


def set_aside(refused: Mapping[Path, UcadiError], folder: Path) -> None:
    """Copies refused files into a folder, each with its reason beside it, for people to look at."""
    make_folder(folder)
    for path, error in refused.items():
        copy_file(path, folder / path.name, force=True, mode=Format.UPDATE.mode)
        write_file(folder / f"{path.name}.reason.txt", f"{error.message}\n".encode(), force=True)


def _checked(path: Path, round_: Round, clip: bool) -> Update:
    update = update_format.read_update(path)
    check_belongs(update, round_)
    encoder = Encoder(update, round_.plan.layout, cap=round_.plan.weight_cap, bits=round_.bits, clip=clip)
    deque(encoder.pieces(), maxlen=0)  # each value is checked against its range as it is encoded
    return update
