"""ucadi translate divide."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.errors import MismatchError, UsageError
from ucadi.files import refuse_existing
from ucadi.formats import casetable
from ucadi.parts import Feature, require
from ucadi.progress import track
from ucadi.translation.recipe import CONTRAST, KINDS, NONCONTRAST

if TYPE_CHECKING:
    from ucadi.formats.dataset import Case, Dataset


@dataclass(frozen=True)
class TranslateDivideResult:
    """The datasets made, with how many cases each; `left_out` are the ids of those that are of neither."""

    contrast: Path
    noncontrast: Path
    cases: dict[str, int]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.contrast}: {self.cases[CONTRAST]} cases",
            f"{self.noncontrast}: {self.cases[NONCONTRAST]} cases",
        ]
        if self.left_out:
            lines.append(f"left out, as header and image are not clear about them: {', '.join(self.left_out)}")
        return "\n".join(lines)


def translate_divide(
    dataset: Annotated[Path, typer.Argument(help="A dataset of scans, from preprocess or merge.")],
    *,
    contrast: Annotated[Path, typer.Option(help="File to write: the scans with contrast medium.")],
    noncontrast: Annotated[Path, typer.Option(help="File to write: those without.")],
    known: Annotated[
        Path | None, typer.Option(help=f"CSV of what readers saw: case,group with the groups {' and '.join(KINDS)}.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> TranslateDivideResult:
    r"""Divide a site's scans into those with contrast medium and those without.

    By what a reader says; else by the image and the header's agent together (paper: metadata, validated by
    radiologists). Most headers name no agent, so its absence says nothing. What stays unclear is left out.

    Example:
        ucadi translate divide site-a.h5 --known known.csv \
            --contrast contrast.h5 --noncontrast noncontrast.h5
    """
    require(Feature.DATASETS)
    from ucadi.formats import dataset as dataset_format

    for path in (contrast, noncontrast):
        refuse_existing(path, force=force)
    read = _known(known)
    with dataset_format.open(dataset) as whole:
        data = whole.scans()
        unknown = set(read) - set(data.ids)
        if unknown and known is not None:
            raise MismatchError(f"{known.name}: {len(unknown)} cases are not in {dataset.name}: {min(unknown)}, ...")
        kinds = {case: read.get(case) or _kind(data.case(index)) for index, case in enumerate(data.ids)}
        counts = {}
        for kind, path in ((CONTRAST, contrast), (NONCONTRAST, noncontrast)):
            chosen = [case for case in data.ids if kinds[case] == kind]
            if not chosen:
                raise MismatchError(f"{dataset.name}: no {kind} scans", hint="--known CSV says which are")
            _write(path, data, chosen, kind, force=force)
            counts[kind] = len(chosen)
    left_out = tuple(case for case, kind in kinds.items() if kind is None)
    return TranslateDivideResult(contrast, noncontrast, counts, left_out)


def _known(path: Path | None) -> Mapping[str, str]:
    """The kind of each case that a reader has judged."""
    groups = {} if path is None else casetable.read_groups(path)
    others = set(groups) - set(KINDS)
    if others and path is not None:
        raise UsageError(f"{path.name}: a group {min(others)!r}", hint=f"groups are {' and '.join(KINDS)}")
    found = {case: kind for kind, cases in groups.items() for case in cases}
    if sum(map(len, groups.values())) != len(found) and path is not None:
        raise MismatchError(f"{path.name}: a case is in both groups", hint="keep one line of the two")
    return found


def _kind(case: Case) -> str | None:
    """What header and image say together; None where they disagree, or nothing is clear."""
    named, seen = case.tags.get("ContrastBolusAgent") == "named", case.tags.get("contrast_estimate")
    if named:
        return None if seen == "unlikely" else CONTRAST
    if case.tags.get("ContrastBolusAgent") == "none" and seen == "likely":
        return None
    return {"likely": CONTRAST, "unlikely": NONCONTRAST}.get(str(seen))


def _write(path: Path, data: Dataset, chosen: Collection[str], kind: str, *, force: bool) -> None:
    from ucadi.formats import dataset as dataset_format

    places = [index for index, case in enumerate(data.ids) if case in chosen]
    cases = track((data.case(index) for index in places), f"writing {kind} scans", len(places))
    dataset_format.write(path, cases, [], size=data.size, attributes=data.attributes, force=force)
