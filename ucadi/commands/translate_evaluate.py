"""ucadi translate evaluate."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import Part, SplitFile
from ucadi.errors import FormatError, MismatchError
from ucadi.files import refuse_existing, write_file
from ucadi.formats import split as split_format
from ucadi.parts import Feature, require
from ucadi.progress import track
from ucadi.scoring.realism import TranslationQuality
from ucadi.translation.recipe import NONCONTRAST

if TYPE_CHECKING:
    from ucadi.ct.volume import Volume
    from ucadi.formats.dataset import Dataset

SAMPLES = 8
"""Cases on the sheet."""


def translate_evaluate(
    translated: Annotated[Path, typer.Argument(help="Synthetic cases, from translate apply.")],
    source: Annotated[Path, typer.Argument(help="The dataset of the scans that they were made of.")],
    real: Annotated[Path, typer.Argument(help="Real scans of the kind that was made; the patients may be others.")],
    *,
    split: SplitFile = None,
    part: Part = None,
    classifier: Annotated[
        Path | None, typer.Option(help="Weights whose features the kernel distance takes [default: a fixed network].")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG to write: slices before, after, and the difference.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing sheet.")] = False,
) -> TranslationQuality:
    """Measure how near translated CTs come to real ones, and whether anatomy is unchanged.

    --split and --part say which of the real scans to compare with.

    Example:
        ucadi translate evaluate translated.h5 site-a.h5 real.h5
    """
    require(Feature.NETWORKS, Feature.DATASETS, where={Feature.PLOTS: sheet})
    from ucadi.formats import dataset as dataset_format
    from ucadi.workflows.translation_quality import Collected, Features, compared

    if sheet is not None:
        refuse_existing(sheet, force=force)
    with ExitStack() as opened:
        made, scans, wanted = (opened.enter_context(dataset_format.open(path)) for path in (translated, source, real))
        kind, places = _sources(made, scans)
        wanted = split_format.select(wanted, split, part).scans()
        if not len(wanted):
            raise FormatError(f"{real.name}: no scans to compare with")
        network = Features(classifier)
        before, after, goal = Collected(network), Collected(network), Collected(network)
        pairs = []
        for index, place in track(list(enumerate(places)), "comparing cases"):
            volume, result = _resized(scans.volume(place), made.size), made.volume(index)
            before.add(volume, scans.ids[place], with_aorta=volume if kind == NONCONTRAST else result)
            after.add(result, scans.ids[place], with_aorta=volume if kind == NONCONTRAST else result)
            before.compare(volume, result)
            if index < SAMPLES:
                middle = len(volume.hu) // 2
                pairs.append((f"to {kind}", volume.hu[middle], result.hu[middle]))
        for index, identifier in track(list(enumerate(wanted.ids)), "measuring real scans"):
            goal.add(_resized(wanted.volume(index), made.size), identifier)
        if sheet is not None:
            from ucadi.scoring.sheets import translation_sheet_png

            write_file(sheet, translation_sheet_png(pairs, f"{translated.name}: {kind}"), force=force)
    return compared(kind, before, after, goal)


def _sources(made: Dataset, scans: Dataset) -> tuple[str, list[int]]:
    """The kind that was made, and of each synthetic case the index of the scan that it was made of."""
    places = {identifier: index for index, identifier in enumerate(scans.ids)}
    found = [(one.kind, places.get(one.source)) for one in made.synthetic if one]
    kinds, missing = {kind for kind, _ in found}, sum(place is None for _, place in found)
    if len(found) < len(made) or len(kinds) != 1:
        raise MismatchError(f"{made.path.name}: not synthetic cases of one kind", hint="give what translate apply made")
    if missing:
        raise MismatchError(f"{scans.path.name}: {missing} of the {len(found)} scans are not in it")
    return kinds.pop(), [place for _, place in found if place is not None]


def _resized(volume: Volume, size: int) -> Volume:
    from ucadi.ct.volume import resize

    return volume if volume.hu.shape[1] == size else resize(volume, size)
