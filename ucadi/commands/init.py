"""ucadi init."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output, setting_option
from ucadi.errors import UsageError
from ucadi.formats import container
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights
from ucadi.hyperparameters import MAX_SEED
from ucadi.learn.networks.architecture import Architecture


@dataclass(frozen=True)
class InitResult:
    """The weights made."""

    weights: Path
    parameters: int
    digest: str

    def __str__(self) -> str:
        return f"{self.weights}: {self.parameters:,} parameters, sha256 {self.digest}"


def init(
    *,
    output: Output,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.", min=0, max=MAX_SEED)] = 0,
    architecture: Annotated[str, setting_option(Architecture, "name")] = "densenet3d",
    width: Annotated[int | None, setting_option(Architecture, "width", "as published")] = None,
    blocks: Annotated[str | None, typer.Option(help="Blocks of each stage, as 2,2,2 [default: as published].")] = None,
    size: Annotated[int, setting_option(Architecture, "size")] = 128,
    norm: Annotated[str, setting_option(Architecture, "norm")] = "batch",
    force: Force = False,
) -> InitResult:
    """Make the random initial weights that a federation begins with.

    The same seed gives the same bytes on every machine, with or without torch. A smaller --width, --size or fewer
    --blocks suit small machines.

    Example:
        ucadi init --seed 1 -o base.weights
    """
    from ucadi.learn.networks.layout import initial_arrays, layout

    network = Architecture.of(architecture, width=width, blocks=_parsed(blocks), size=size, norm=norm)
    weights = Weights(initial_arrays(network, seed), network.description(), {"seed": seed})
    weights_format.write(output, weights, force=force)
    return InitResult(output, sum(layer.parameters for layer in layout(network)), container.file_digest(output))


def _parsed(blocks: str | None) -> tuple[int, ...] | None:
    try:
        return None if blocks is None else tuple(map(int, blocks.split(",")))
    except ValueError:
        raise UsageError(f"blocks are whole numbers, not {blocks!r}", hint="--blocks 2,2,2, for instance") from None
