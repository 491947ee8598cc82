"""ucadi init."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import MAX_SEED, Force, Output
from ucadi.errors import UsageError
from ucadi.formats import container
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights
from ucadi.learn.networks.blueprints import NETWORKS


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
    architecture: Annotated[
        str,
        typer.Option(
            help="densenet3d, as in the paper, resnet50, resnet101, xception, or one that a package adds.",
            autocompletion=NETWORKS.names,
        ),
    ] = "densenet3d",
    width: Annotated[
        int | None,
        typer.Option(
            help="Channels of the first convolution, which sets all others [default: 32 or 64].", min=1, max=4096
        ),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Blocks of each stage [default: 2,2,2 for densenet3d; else as published].")
    ] = None,
    size: Annotated[
        int, typer.Option(help="Rows and columns of the input; the paper's network has 128.", min=1, max=4096)
    ] = 128,
    norm: Annotated[str, typer.Option(help="batch, or group, which differentially private training needs.")] = "batch",
    force: Force = False,
) -> InitResult:
    """Make the random initial weights that a federation begins with.

    The same seed gives the same bytes on every machine, with or without torch. A smaller --width, --size or fewer
    --blocks suit small machines.
    """
    from ucadi.learn.networks.architecture import Architecture
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
