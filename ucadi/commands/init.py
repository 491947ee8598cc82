"""ucadi init."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi.commands import Force, Output
from ucadi.formats import container
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights


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
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    width: Annotated[int, typer.Option(help="Growth rate; the paper's network has 32.", min=1)] = 32,
    size: Annotated[int, typer.Option(help="Rows and columns of the input; the paper's network has 128.")] = 128,
    norm: Annotated[str, typer.Option(help="batch, or group, which differentially private training needs.")] = "batch",
    force: Force = False,
) -> InitResult:
    """Make the random initial weights that a federation begins with.

    The same seed gives the same bytes. A smaller --width or --size suits small machines.
    """
    from ucadi.learn.architecture import Architecture
    from ucadi.learn.network import build, count_parameters, state_arrays

    architecture = Architecture(width=width, size=size, norm=norm)
    model = build(architecture, seed)
    weights = Weights(state_arrays(model), architecture.description(), {"seed": seed})
    weights_format.write(output, weights, force=force)
    return InitResult(output, count_parameters(model), container.file_digest(output))
