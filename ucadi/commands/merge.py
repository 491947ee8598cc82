"""ucadi merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import Force, Output, without
from ucadi.errors import MismatchError, UsageError
from ucadi.files import refuse_existing
from ucadi.formats import container
from ucadi.parts import Feature, require
from ucadi.progress import track

if TYPE_CHECKING:
    from ucadi.formats.dataset import Case, Dataset


@dataclass(frozen=True)
class MergeResult:
    """The dataset made, and what is in it."""

    dataset: Path
    merged: int
    cases: int
    patients: int
    digest: str

    def __str__(self) -> str:
        return f"{self.dataset}: {self.cases} cases of {self.patients} patients from {self.merged} datasets"


def merge(
    datasets: Annotated[list[Path], typer.Argument(help="Datasets of one site, made with the same options and salt.")],
    *,
    output: Output,
    force: Force = False,
) -> MergeResult:
    """Make one dataset of several, such as a site's old scans and its new ones.

    Cases keep their ids and patients. A case or scan that is in two of them is refused: it would count twice, and
    under two patients' ids it could be on both sides of a split.

    Example:
        ucadi merge old.h5 new.h5 -o site-a.h5
    """
    require(Feature.DATASETS)
    from ucadi.formats import dataset as dataset_format

    refuse_existing(output, force=force)
    with ExitStack() as stack:
        parts = [stack.enter_context(dataset_format.open(path)) for path in without(output, datasets)]
        if not parts:
            raise UsageError(f"{output}: no dataset but the output itself", hint="name the datasets to merge")
        first = parts[0]
        for other in parts[1:]:
            _check_alike(first, other)
        _check_distinct(parts)
        rejections = [rejection for part in parts for rejection in part.rejections]
        total = sum(map(len, parts))
        cases = track(_cases(parts), "merging cases", total=total)
        dataset_format.write(output, cases, rejections, size=first.size, attributes=first.attributes, force=force)
        patients = {patient for part in parts for patient in part.patients}
    return MergeResult(output, len(parts), total, len(patients), container.file_digest(output))


def _cases(parts: Sequence[Dataset]) -> Iterator[Case]:
    """All cases in the order of their ids, so that the file does not depend on the order of the datasets."""
    places = sorted((case, number, index) for number, part in enumerate(parts) for index, case in enumerate(part.ids))
    for _, number, index in places:
        yield parts[number].case(index)


def _check_alike(first: Dataset, other: Dataset) -> None:
    made = [{"size": part.size, **part.attributes} for part in (first, other)]
    if made[0] != made[1]:
        raise MismatchError(
            f"{other.path.name}: made with {made[1]}, {first.path.name} with {made[0]}",
            hint="preprocess both in the same way",
        )


def _check_distinct(parts: Sequence[Dataset]) -> None:
    seen: dict[str, str] = {}
    for part in parts:
        for case, digest in zip(part.ids, part.series_digests, strict=True):
            for name in (case, digest):
                if name in seen:
                    raise MismatchError(
                        f"{part.path.name}: case {case} is in {seen[name]} too",
                        hint="preprocess it only once; with two salts one patient would get two ids",
                    )
        seen |= dict.fromkeys((*part.ids, *part.series_digests), part.path.name)
