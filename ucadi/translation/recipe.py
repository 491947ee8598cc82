"""Translation between contrast and non-contrast CTs: networks, schedule and state as plain numbers, without torch.

The paper's CycleGAN (Supplementary Information, "Augmented contrast/non-contrast CTs with CycleGAN"): batches of 12,
200 epochs, a learning rate of 2e-4 that is constant for half of them and then falls to zero linearly. What it
does not say is as in Zhu et al. (2017). Every choice follows from (seed, epoch, step).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ucadi.errors import FormatError
from ucadi.hyperparameters import BATCH, EPOCHS, PRECISION, SEED, Precision
from ucadi.learn.state import Arrays
from ucadi.settings import check_fields, setting

NONCONTRAST, CONTRAST = "non-contrast", "contrast"

KINDS = (NONCONTRAST, CONTRAST)
"""The two kinds of CT. A direction is named by the kind that it makes."""

OTHER = {NONCONTRAST: CONTRAST, CONTRAST: NONCONTRAST}

CYCLE_GAN, ACL_GAN, COUNCIL_GAN = "cyclegan", "acl-gan", "council-gan"

METHODS = {CYCLE_GAN: (10.0, 5.0), ACL_GAN: (0.2, 1.0), COUNCIL_GAN: (0.5, 1.0)}
"""Ways to learn a translation, with the weights that their authors give consistency and identity; of CouncilGAN, whose
authors keep changes small by a mask, the latter is ours."""

MEMBERS = {CYCLE_GAN: 1, ACL_GAN: 1, COUNCIL_GAN: 4}
"""Generators of each kind that learn together; the first of them is kept."""

PAIRS = {CYCLE_GAN: 0, ACL_GAN: 1, COUNCIL_GAN: 4}
"""Critics of each kind that see an image beside what it is made of."""


@dataclass(frozen=True)
class TranslatorArchitecture:
    """What it takes to build the networks, as plain values; the defaults are Zhu et al.'s, but for `skip`.

    `width` are the channels of the first convolution, of generators and critics alike; `depth` how many adjacent slices
    an image has, an odd number. With `skip` a generator makes the change and adds it to its input, so that what
    it does not touch keeps its HU; without, it makes the whole image, as the original does. `size` are the
    rows and columns that it was trained at. FormatError for numbers that make no network.
    """

    width: int = setting(64, "Channels of the networks' first convolution.", least=2, most=1024)
    blocks: int = setting(9, "Residual blocks of a generator.", least=1, most=64)
    depth: int = setting(3, "Adjacent slices that are translated together, an odd number.", least=1, most=99, step=2)
    size: int = setting(512, "Rows and columns of the images; datasets may have others.", least=32, most=4096, step=4)
    skip: bool = setting(True, "Generators make the change, not the whole image.")
    method: str = setting(CYCLE_GAN, "How to translate.", choices=tuple(METHODS))

    def __post_init__(self) -> None:
        check_fields(self, FormatError, "translator")

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> TranslatorArchitecture:
        """What `description` gave. FormatError for anything else."""
        try:
            return cls(**described)
        except TypeError as error:
            raise FormatError(f"translator: {error}", hint="it comes from another release of ucadi") from None

    def description(self) -> dict[str, Any]:
        """As JSON for a file."""
        return asdict(self)


def _published(number: int) -> str:
    return "the method's: " + ", ".join(f"{weights[number]:g} for {method}" for method, weights in METHODS.items())


@dataclass(frozen=True)
class TranslationRecipe:
    """How to train; the defaults are the paper's, where it gives them, or Zhu et al.'s. UsageError for impossible ones.

    The paper drew about 40 slices of each case.
    """

    learning_rate: float = setting(2e-4, "Learning rate of the first half; then it falls to zero.", least=0)
    batch_size: int = setting(12, "Images of each kind in a batch.", unit="images", least=1, **BATCH)
    total_epochs: int = setting(200, "How often to go through the data.", **EPOCHS)
    slices_per_case: int = setting(40, "Most slices drawn of a case in an epoch.", unit="slices", least=1, most=10_000)
    consistency: float = setting(
        METHODS[CYCLE_GAN][0], "Weight of the loss that ties an image to its source.", least=0, unset=_published(0)
    )
    identity: float = setting(METHODS[CYCLE_GAN][1], "Weight of the identity loss.", least=0, unset=_published(1))
    pool_size: int = setting(
        50, "Made images of each kind that are kept to show the critics.", unit="images", least=0, most=10_000
    )
    augment: bool = setting(True, "Mirror and move images at random.")
    precision: Precision = setting("float32", "Arithmetic of training; bfloat16 is mixed precision.", **PRECISION)
    seed: int = setting(0, "Seed of weights, order, pools and augmentation.", **SEED)

    def __post_init__(self) -> None:
        check_fields(self, what="translation")

    @classmethod
    def of(cls, method: str, chosen: Mapping[str, Any]) -> TranslationRecipe:
        """The recipe of a method, whose authors' weights hold where others are not `chosen`."""
        consistency, identity = METHODS[method]
        return cls(**{"consistency": consistency, "identity": identity, **chosen})

    def description(self) -> dict[str, Any]:
        """As JSON for a file."""
        return asdict(self)


def learning_rate(recipe: TranslationRecipe, position: float) -> float:
    """The learning rate at `position`, in epochs: constant for half of all, then linearly to zero."""
    half = recipe.total_epochs / 2
    return recipe.learning_rate * min(1.0, max(0.0, recipe.total_epochs - position) / half)


Place = tuple[int, int]
"""A slice: the case's index and the slice's."""


@dataclass(frozen=True)
class ImageStep:
    """One step: for each kind the slices in the middle of its batch's images, and where in the schedule it stands."""

    epoch: int
    number: int
    places: Mapping[str, Sequence[Place]]
    position: float
    """In epochs, of the middle of the step."""
    last: bool
    """Of its epoch."""


def image_steps(recipe: TranslationRecipe, epoch: int, lengths: Mapping[str, Sequence[int]]) -> list[ImageStep]:
    """The steps of an epoch over cases with so many slices each, by kind.

    The kind that gives fewer images is gone through more than once, so that each step has as many of both.
    """
    drawn = {
        kind: list(_places(recipe, lengths[kind], np.random.default_rng((recipe.seed, epoch, number))))
        for number, kind in enumerate(KINDS)
    }
    total = max(map(len, drawn.values()))
    count = math.ceil(total / recipe.batch_size)
    parts = np.array_split(np.arange(total), count)
    return [
        ImageStep(
            epoch,
            number,
            {kind: [places[i % len(places)] for i in part] for kind, places in drawn.items()},
            epoch + (number + 0.5) / count,
            number == count - 1,
        )
        for number, part in enumerate(parts)
    ]


def _places(recipe: TranslationRecipe, lengths: Sequence[int], rng: np.random.Generator) -> Iterator[Place]:
    """Up to `slices_per_case` slices of each case, in an order of all."""
    chosen = [
        (case, int(index))
        for case, length in enumerate(lengths)
        for index in rng.permutation(length)[: recipe.slices_per_case]
    ]
    for number in rng.permutation(len(chosen)):
        yield chosen[number]


def step_rng(recipe: TranslationRecipe, step: ImageStep, purpose: int) -> np.random.Generator:
    """The generator of a step's other choices: 0 for pools and noise, 1 and 2 for the images of each kind."""
    return np.random.default_rng((recipe.seed, step.epoch, step.number, purpose + len(KINDS)))


@dataclass(frozen=True)
class Losses:
    """Means over both kinds: what the critics hold against made images, what ties these to what they are made of (of
    CycleGAN, what is lost by going there and back), what changes where nothing should, and how badly the critics tell
    made images from real ones."""

    adversarial: float
    consistency: float
    identity: float
    critic: float


@dataclass(frozen=True)
class TranslationRecord:
    """What an epoch was like: the mean losses of its steps and the learning rate of the last."""

    epoch: int
    learning_rate: float
    losses: Losses


@dataclass(frozen=True)
class TranslationState:
    """All that the steps from `next_step` of `next_epoch` on depend on, besides images and recipe.

    `networks` are generators and critics; `first` and `second` Adam's moments of their parameters after `updates`
    steps; `pools` the images (n, depth, H, W) that are remembered of each kind; `losses` those of the steps that
    `next_epoch` has had.
    """

    next_epoch: int
    next_step: int
    updates: int
    networks: Arrays
    first: Arrays
    second: Arrays
    pools: Mapping[str, NDArray[np.float32]]
    losses: tuple[Losses, ...] = ()
    records: tuple[TranslationRecord, ...] = field(default=())
