"""ucadi translate train."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from ucadi.commands import (
    CHECKPOINT_SECONDS,
    HYPERPARAMETER,
    CheckpointEvery,
    CheckpointFile,
    Device,
    Force,
    Output,
    Part,
    RecipeFile,
    SplitFile,
    refuse_unused,
    set_option,
    setting_option,
)
from ucadi.ct.translation import CONTRAST_WINDOW_HU, Window
from ucadi.errors import FormatError
from ucadi.files import make_folder, refuse_existing, write_file
from ucadi.formats import split as split_format
from ucadi.formats.container import file_digest
from ucadi.formats.schedules import choose
from ucadi.hyperparameters import MAX_EPOCHS
from ucadi.parts import Feature, require
from ucadi.progress import note
from ucadi.settings import settings_of
from ucadi.translation.recipe import (
    CONTRAST,
    CYCLE_GAN,
    KINDS,
    NONCONTRAST,
    TranslationRecipe,
    TranslationRecord,
    TranslatorArchitecture,
)

if TYPE_CHECKING:
    from ucadi.formats.dataset import Dataset
    from ucadi.translation.networks import TranslationNetworks

SAMPLES = 4
"""Cases of each kind on a sheet of samples."""


@dataclass(frozen=True)
class TranslateTrainResult:
    """The translator made, how many cases of each kind it has seen, and the losses of each epoch."""

    translator: Path
    digest: str
    cases: dict[str, int]
    epochs: int
    consistency: list[float]
    identity: list[float]
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.translator}: {self.cases[CONTRAST]} contrast and {self.cases[NONCONTRAST]} non-contrast cases x "
            f"{self.epochs} epochs in {self.seconds:.1f} s\nsha256 {self.digest}"
        )


def translate_train(
    contrast: Annotated[Path, typer.Argument(help="A dataset of CTs with contrast medium.")],
    noncontrast: Annotated[Path, typer.Argument(help="A dataset of CTs without; the patients may be others.")],
    *,
    output: Output,
    split: SplitFile = None,
    part: Part = None,
    method: Annotated[str, setting_option(TranslatorArchitecture, "method")] = CYCLE_GAN,
    size: Annotated[int, setting_option(TranslatorArchitecture, "size")] = 512,
    width: Annotated[int, setting_option(TranslatorArchitecture, "width")] = 64,
    blocks: Annotated[int, setting_option(TranslatorArchitecture, "blocks")] = 9,
    depth: Annotated[int, setting_option(TranslatorArchitecture, "depth")] = 3,
    skip: Annotated[bool, setting_option(TranslatorArchitecture, "skip")] = True,
    window: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="HU that the networks see as -1 to 1.")
    ] = CONTRAST_WINDOW_HU,
    recipe: RecipeFile = None,
    settings: Annotated[list[str] | None, set_option(settings_of(TranslationRecipe), HYPERPARAMETER)] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Folder for sheets of samples: before, after, difference.")
    ] = None,
    samples_every: Annotated[
        int | None, typer.Option(help="Epochs from one sheet to the next [default: 10].", min=1, max=MAX_EPOCHS)
    ] = None,
    device: Device = "auto",
    checkpoint: CheckpointFile = None,
    checkpoint_every: CheckpointEvery = None,
    force: Force = False,
) -> TranslateTrainResult:
    r"""Learn to make contrast CTs non-contrast and the reverse, from unpaired scans (paper, CycleGAN).

    The defaults are the paper's, for a GPU; --size 64 --width 16 --blocks 4 is enough to try it on a CPU. With
    --checkpoint, a training that was stopped goes on from there and ends with the same bytes.

    Example:
        ucadi translate train contrast.h5 noncontrast.h5 --size 32 --width 4 \
            --blocks 1 --set total_epochs=1 -o site-a.translator
    """
    if samples is None:
        refuse_unused({"--samples-every": samples_every}, "there are no --samples to write")
    if checkpoint is None:
        refuse_unused({"--checkpoint-every": checkpoint_every}, "there is no --checkpoint to write")
    require(Feature.NETWORKS, Feature.DATASETS, where={Feature.PLOTS: samples})
    from ucadi.formats import dataset as dataset_format
    from ucadi.formats import translation_checkpoint
    from ucadi.formats import translator as translator_format
    from ucadi.formats.translator import Translator
    from ucadi.learn.distributed import own_device
    from ucadi.translation.apply import generator_arrays
    from ucadi.translation.loop import TranslationHooks, train_translator
    from ucadi.translation.networks import build

    for path in (output, checkpoint or output):
        refuse_existing(path, force=force or path == checkpoint)
    if samples is not None:
        make_folder(samples)
    if part is not None:
        split_format.require_training(part)
    architecture = TranslatorArchitecture(width, blocks, depth, size, skip, method)
    chosen = TranslationRecipe.of(method, choose(settings_of(TranslationRecipe), recipe, settings or ()))
    seen = Window(*window)
    with ExitStack() as opened:
        data = {}
        for kind, path in ((CONTRAST, contrast), (NONCONTRAST, noncontrast)):
            whole = opened.enter_context(dataset_format.open(path))
            data[kind] = split_format.select(whole, split, part).scans()
            if not len(data[kind]):
                raise FormatError(f"{path.name}: no scans to train on")
        images = _Images(data, seen, architecture)
        origin = {
            "datasets": {kind: _digest(one) for kind, one in data.items()},
            "recipe": chosen.description(),
        }
        training = {**origin, "architecture": architecture.description(), "window_hu": list(window)}
        model = build(architecture, chosen.seed).to(own_device(device))
        began = perf_counter()
        records = train_translator(
            model,
            images.image,
            {kind: [one.length(index) for index in range(len(one))] for kind, one in data.items()},
            chosen,
            resume=translation_checkpoint.read(checkpoint, training) if checkpoint else None,
            hooks=TranslationHooks(
                report=partial(_report, chosen.total_epochs),
                show=partial(_show, samples, samples_every or 10, chosen.total_epochs, images) if samples else None,
                checkpoint=partial(translation_checkpoint.write, checkpoint, training) if checkpoint else None,
                checkpoint_seconds=CHECKPOINT_SECONDS if checkpoint_every is None else checkpoint_every,
            ),
        )
        seconds = perf_counter() - began
        made = Translator(generator_arrays(model), architecture.description(), seen, origin)
        translator_format.write(output, made, force=force)
        if checkpoint:
            checkpoint.unlink(missing_ok=True)
        return TranslateTrainResult(
            output,
            file_digest(output),
            {kind: len(one) for kind, one in data.items()},
            len(records),
            [record.losses.consistency for record in records],
            [record.losses.identity for record in records],
            seconds,
        )


class _Images:
    """The slices of both kinds of CT, as the networks see them."""

    def __init__(self, data: Mapping[str, Dataset], window: Window, architecture: TranslatorArchitecture) -> None:
        self.data, self.window, self.architecture = data, window, architecture

    def slices(self, kind: str, case: int, index: int) -> npt.NDArray[np.int16]:
        """The slice of a case with its neighbours, int16 (depth, row, column)."""
        from ucadi.ct.translation import neighbours

        data = self.data[kind]
        return data.slices(case, neighbours(data.length(case), self.architecture.depth, index))

    def image(self, kind: str, case: int, index: int, rng: np.random.Generator | None) -> npt.NDArray[np.float32]:
        """The same as an image for the networks."""
        from ucadi.ct.translation import image

        return image(self.slices(kind, case, index), self.window, self.architecture.size, rng)


def _digest(data: Dataset) -> str:
    """Names the dataset and which cases of it are seen."""
    return hashlib.sha256("\n".join([data.digest, *data.ids]).encode()).hexdigest()


def _report(epochs: int, records: Sequence[TranslationRecord]) -> None:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in asdict(records[-1].losses).items())
    note(f"epoch {records[-1].epoch + 1} of {epochs}: {losses}")


def _show(folder: Path, every: int, epochs: int, images: _Images, model: TranslationNetworks, done: int) -> None:
    """A sheet of what the generators make of a few slices, the same ones in every epoch."""
    from ucadi.ct.translation import translate
    from ucadi.ct.volume import Volume
    from ucadi.scoring.sheets import translation_sheet_png
    from ucadi.translation.apply import changes
    from ucadi.translation.networks import Generator

    if done % every and done != epochs:
        return
    depth, size = images.architecture.depth, images.architecture.size
    pairs = []
    for number in range(SAMPLES):
        for made, source in zip(KINDS, KINDS[::-1], strict=True):
            data = images.data[source]
            case = number * len(data) // SAMPLES
            before = images.slices(source, case, data.length(case) // 2)
            generator = model.generators[made]
            assert isinstance(generator, Generator)
            after = translate(
                Volume(before, np.eye(4)), partial(changes, generator), images.window, depth=depth, size=size
            )
            generator.train()
            pairs.append((f"to {made}", before[depth // 2], after.hu[depth // 2]))
    make_folder(folder)
    picture = translation_sheet_png(pairs, f"after {done} of {epochs} epochs")
    write_file(folder / f"epoch-{done:04d}.png", picture, force=True)
