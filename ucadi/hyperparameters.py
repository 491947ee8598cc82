"""The hyper-parameters of training, each once: what a plan, a recipe file, `--set` and the pages know of it.

Adding one takes two files: its field here, and where it acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ucadi.errors import UsageError
from ucadi.labels import LOSS_WEIGHTS
from ucadi.settings import check_fields, setting

Precision = Literal["float32", "bfloat16"]
"""Of the arithmetic of training; weights are float32 always. bfloat16 is fast only where the processor knows it."""

MAX_EPOCHS = 100_000

MAX_SEED = (1 << 53) - 1
"""Largest seed: what JSON of every program holds exactly."""

SEED = {"least": 0, "most": MAX_SEED}
EPOCHS = {"unit": "epochs", "least": 1, "most": MAX_EPOCHS}
BATCH = {"most": 65536}
PRECISION = {"choices": get_args(Precision)}
"""Rules that the translator's recipe shares."""


@dataclass(frozen=True)
class Recipe:
    """How to train, at all sites alike; the defaults are the paper's (Methods). UsageError for impossible numbers.

    Epochs count over the whole of a training, also when a federation spreads it over rounds: the learning rate runs
    over `total_epochs` of all rounds together, not anew in each.
    """

    local_epochs: int = setting(1, "Epochs that a site trains in a round.", **EPOCHS, always=True)
    total_epochs: int = setting(100, "Epochs of all rounds together.", **EPOCHS, always=True)
    warmup_epochs: int = setting(5, "Epochs over which the learning rate rises.", **{**EPOCHS, "least": 0}, always=True)
    learning_rate: float = setting(
        0.01, "Highest learning rate; after the warm-up it falls to zero as a cosine.", least=0, always=True
    )
    batch_size: int = setting(16, "CTs in a batch.", unit="CTs", least=2, **BATCH, always=True)
    drop_rate: float = setting(
        0.1, "Drop rate of DropBlock at the end, reached linearly from zero.", least=0, below=1, always=True
    )
    seed: int = setting(0, "Seed of order, sampling, augmentation and DropBlock.", **SEED, always=True)
    precision: Precision = setting(
        "float32", "Arithmetic of training; bfloat16 is faster on processors that multiply it in hardware.",
        **PRECISION, always=True,
    )  # fmt: skip
    momentum: float = setting(0.9, "Momentum of SGD.", least=0, below=1)
    weight_decay: float = setting(0.0, "Weight decay of convolutions and the linear layer.", least=0)
    loss_weights: tuple[float, ...] = setting(
        LOSS_WEIGHTS, "Weights of the diagnoses in the loss, one each.", above=0, longest=len(LOSS_WEIGHTS)
    )
    proximal: float = setting(0.0, "FedProx's mu: the pull to the weights that the round began with.", least=0)
    clip_norm: float | None = setting(None, "Largest norm of a step's gradient.", above=0, unset="none", example=1.0)
    update_norm: float | None = setting(
        None, "Largest norm of a site's update, without the norms' statistics.", above=0, unset="none", example=5.0
    )
    balanced: bool = setting(False, "Draw each diagnosis equally often.")
    augment: bool = setting(False, "Mirror, turn, scale and move each slab at random, and add noise.")
    noise: float = setting(0.0, "Noise of differentially private training, in multiples of clip_norm.", least=0)
    delta: float = setting(1e-5, "Delta for which the privacy spent is computed.", above=0, below=1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.local_epochs > self.total_epochs:
            raise UsageError(
                f"{self.local_epochs} local epochs in a schedule of {self.total_epochs} in total",
                hint="local_epochs is from 1 to total_epochs",
            )
        if self.noise and self.clip_norm is None:
            raise UsageError("noise is in multiples of clip_norm, which is not given", hint="clip_norm = 1.0, perhaps")
