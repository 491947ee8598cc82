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

from ucadi.errors import FormatError, UsageError
from ucadi.learn.state import Arrays

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

    width: int = 64
    blocks: int = 9
    depth: int = 3
    size: int = 512
    skip: bool = True
    method: str = CYCLE_GAN

    def __post_init__(self) -> None:
        for name, value, fits, wanted in (
            ("width", self.width, 2 <= self.width <= 1024, "2 to 1024"),
            ("blocks", self.blocks, 1 <= self.blocks <= 64, "1 to 64"),
            ("depth", self.depth, 1 <= self.depth <= 99 and self.depth % 2 == 1, "odd, and 99 or less"),
            ("size", self.size, 32 <= self.size <= 4096 and self.size % 4 == 0, "a multiple of 4, from 32 to 4096"),
            ("method", self.method, self.method in METHODS, f"one of {', '.join(METHODS)}"),
        ):
            if not fits or type(value) not in (int, str):
                raise FormatError(f"translator: {name} is {value!r:.40}", hint=f"it must be {wanted}")

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


@dataclass(frozen=True)
class TranslationRecipe:
    """How to train; the defaults are the paper's, where it gives them, or Zhu et al.'s. UsageError for impossible ones.

    `slices_per_case` are drawn of each case anew in each epoch (the paper used about 40 of each). `consistency` and
    `identity` weigh these losses against the adversarial one; `pool_size` is how many made images of each kind the
    critics are shown from memory. `augment` mirrors and moves images at random.
    """

    learning_rate: float = 2e-4
    batch_size: int = 12
    total_epochs: int = 200
    slices_per_case: int = 40
    consistency: float = METHODS[CYCLE_GAN][0]
    identity: float = METHODS[CYCLE_GAN][1]
    pool_size: int = 50
    augment: bool = True
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, fits, wanted in (
            ("learning_rate", self.learning_rate, 0 <= self.learning_rate < math.inf, "zero or more"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "one or more"),
            ("total_epochs", self.total_epochs, self.total_epochs >= 1, "one or more"),
            ("slices_per_case", self.slices_per_case, self.slices_per_case >= 1, "one or more"),
            ("consistency", self.consistency, 0 <= self.consistency < math.inf, "zero or more"),
            ("identity", self.identity, 0 <= self.identity < math.inf, "zero or more"),
            ("pool_size", self.pool_size, self.pool_size >= 0, "zero or more"),
            ("precision", self.precision, self.precision in ("float32", "bfloat16"), "float32 or bfloat16"),
            ("seed", self.seed, self.seed >= 0, "zero or more"),
        ):
            if not fits:
                raise UsageError(f"translation: {name} is {value}", hint=f"it must be {wanted}")

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
