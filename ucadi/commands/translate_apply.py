"""ucadi translate apply."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ucadi.commands import Device, Force, Output, Part, SplitFile
from ucadi.errors import MismatchError, UsageError
from ucadi.formats import split as split_format
from ucadi.formats import translator as translator_format
from ucadi.formats.container import file_digest
from ucadi.parts import Feature, require
from ucadi.progress import track
from ucadi.translation.recipe import KINDS, NONCONTRAST, TranslatorArchitecture

if TYPE_CHECKING:
    from ucadi.ct.translation import Changes
    from ucadi.formats.dataset import Case, Dataset
    from ucadi.formats.translator import Translator


@dataclass(frozen=True)
class TranslateApplyResult:
    """The dataset made: synthetic cases of one kind, each of a patient's scan."""

    dataset: Path
    kind: str
    cases: int
    patients: int
    translator: str
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.dataset}: {self.cases} synthetic {self.kind} cases of {self.patients} patients, for training only"
        )


def translate_apply(
    dataset: Annotated[Path, typer.Argument(help="The scans to translate: a dataset, from preprocess or merge.")],
    *,
    model: Annotated[Path, typer.Option(help="The translator, from translate train.")],
    output: Output,
    to: Annotated[str, typer.Option(help=f"What to make: {' or '.join(KINDS)}.")] = NONCONTRAST,
    split: SplitFile = None,
    part: Part = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Rows and columns of the output, at most the dataset's [default: the same].", min=16, max=4096
        ),
    ] = None,
    device: Device = "auto",
    force: Force = False,
) -> TranslateApplyResult:
    """Make a dataset of what scans would look like without contrast medium, or with it.

    Its cases are marked as synthetic, with the translator's digest. They keep geometry, diagnosis and patient, so
    that merge puts them beside scans and a split of the patients goes on fitting. train takes them; validation
    and test sets and predict do not.

    Example:
        ucadi translate apply site-a.h5 --model site-a.translator -o translated.h5
    """
    require(Feature.NETWORKS, Feature.DATASETS)
    from ucadi.formats import dataset as dataset_format
    from ucadi.learn.distributed import own_device
    from ucadi.translation.apply import changes, restore_generators

    if to not in KINDS:
        raise UsageError(f"--to {to}: no such kind of CT", hint=f"one of {', '.join(KINDS)}")
    translator = translator_format.read(model)
    generator = restore_generators(translator.architecture, translator.arrays)[to].to(own_device(device))
    with dataset_format.open(dataset) as whole:
        data = split_format.select(whole, split, part).scans()
        if not len(data):
            raise MismatchError(
                f"{dataset.name}: no scans to translate", hint="synthetic cases are not translated again"
            )
        if size is not None and size > data.size:
            raise UsageError(f"--size {size}: the dataset has {data.size}", hint="preprocess it at that size")
        cases = track(_translated(data, translator, to, partial(changes, generator), size), "translating", len(data))
        dataset_format.write(output, cases, [], size=size or data.size, attributes=data.attributes, force=force)
        return TranslateApplyResult(
            output, to, len(data), len(set(data.patients)), translator.digest, file_digest(output)
        )


def _translated(data: Dataset, translator: Translator, kind: str, changed: Changes, size: int | None) -> Iterator[Case]:
    """The synthetic cases, in the order of their ids."""
    places = sorted((_derived(case, translator, kind)[:16], index) for index, case in enumerate(data.ids))
    for identifier, index in places:
        yield _case(data.case(index), identifier, translator, kind, changed, size)


def _case(case: Case, identifier: str, translator: Translator, kind: str, changed: Changes, size: int | None) -> Case:
    from ucadi.ct.observation import observe
    from ucadi.ct.translation import translate
    from ucadi.ct.volume import resize
    from ucadi.formats.dataset import Synthetic

    architecture = TranslatorArchitecture.parse(translator.architecture)
    depth, side = architecture.depth, architecture.size
    volume = translate(case.volume, changed, translator.window, depth=depth, size=side)
    if size is not None:
        volume = resize(volume, size)
    facts, _ = observe(volume, case.tags)
    return replace(
        case,
        id=identifier,
        volume=volume,
        tags={**case.tags, **facts},
        series_digest=_derived(case.series_digest, translator, kind),
        flags=(*case.flags, "synthetic"),
        synthetic=Synthetic(translator.digest, kind, case.id),
    )


def _derived(name: str, translator: Translator, kind: str) -> str:
    """A digest that no scan has, the same whenever the same is translated in the same way."""
    return hashlib.sha256(f"ucadi translation\0{name}\0{translator.digest}\0{kind}".encode()).hexdigest()
