"""One module, one command: a function on files, whose body is read, compute, write.

The options that many commands share are described here once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ucadi.errors import UsageError
from ucadi.fed.plan import Schedule
from ucadi.formats import schedules
from ucadi.formats.schedules import RecipeFile

MAX_SEED = (1 << 53) - 1
"""Largest seed: what JSON of every program holds exactly."""

MAX_EPOCHS = 100_000

MAX_PROCESSES = 1024

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
PlanFile = Annotated[Path, typer.Option("--plan", help="The round's signed plan.")]
RosterFile = Annotated[Path, typer.Option("--roster", help="The federation's signed roster.")]
KeyFile = Annotated[Path, typer.Option("--key", help="One's own secret key file.")]

SplitFile = Annotated[Path | None, typer.Option("--split", help="A split of the dataset, with --part.")]
Part = Annotated[
    str | None, typer.Option(metavar="PART", help="Only the cases in trainval, test, train-K or val-K of the split.")
]

LocalEpochs = Annotated[
    int | None, typer.Option(help="Epochs that a site trains in a round [default: 1].", min=1, max=MAX_EPOCHS)
]
TotalEpochs = Annotated[
    int | None, typer.Option(help="Epochs of all rounds together [default: 100].", min=1, max=MAX_EPOCHS)
]
WarmupEpochs = Annotated[
    int | None, typer.Option(help="Epochs over which the learning rate rises [default: 5].", min=0, max=MAX_EPOCHS)
]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate [default: 0.01].", min=0, max=100)]
BatchSize = Annotated[int | None, typer.Option(help="CTs in a batch [default: 16].", min=2, max=65536)]
DropRate = Annotated[
    float | None, typer.Option(help="DropBlock's drop rate at the end [default: 0.1].", min=0, max=0.99)
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of order, sampling and DropBlock [default: 0].", min=0, max=MAX_SEED)
]

Headroom = Annotated[int, typer.Option(help="Ranges are 2^HEADROOM times the base's.", min=0, max=16)]

Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where torch has one.")]

PrecisionOption = Annotated[str | None, typer.Option("--precision", help="float32 or bfloat16 [default: float32].")]

LogFile = Annotated[
    Path | None, typer.Option("--log", help="Also add each line that is told, with its time, to this file.")
]

CheckpointFile = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="File to keep the training's state in, and to go on from; removed at the end."),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option("--checkpoint-minutes", help="How often to write it beside the end of each epoch.", min=0, max=1e6),
]

RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", help="TOML file of hyper-parameters; options given beside it come first.")
]


def refuse_unused(options: Mapping[str, object], why: str) -> None:
    """Raises UsageError if any of the options was given: they would do nothing here, because of `why`.

    An option was given if its value is neither None nor False nor empty.
    """
    given = [option for option, value in options.items() if value is not None and value is not False and value != ()]
    if given:
        raise UsageError(f"{', '.join(given)}: {why}", hint=f"leave out {', '.join(given)}")


def without(output: Path, inputs: Sequence[Path]) -> list[Path]:
    """The inputs but for the output, which a pattern such as *.enc names too when a command is run again."""
    return [path for path in inputs if path.resolve() != output.resolve()]


def schedule_of(recipe: RecipeFile | None = None, **chosen: float | str | None) -> Schedule:
    """The paper's schedule, but for what the recipe says, but for what was chosen on the command line."""
    given = {name: value for name, value in chosen.items() if value is not None}
    said = {**(recipe or RecipeFile()).schedule, **given}
    schedule = Schedule(**said)
    # the paper's five epochs of warm-up are more than a short training has; whoever says more means something else
    if "warmup_epochs" in said and schedule.warmup_epochs > schedule.total_epochs:
        raise UsageError(
            f"{schedule.warmup_epochs} epochs of warm-up in a schedule of {schedule.total_epochs}",
            hint="warmup_epochs is at most total_epochs, which counts the epochs of all rounds together",
        )
    return schedule


def read_recipe(path: Path | None) -> RecipeFile:
    """The recipe file, or one that says nothing."""
    return RecipeFile() if path is None else schedules.read_recipe(path)
