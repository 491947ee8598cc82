"""One module, one command: a function on files, whose body is read, compute, write.

The options that many commands share are described here once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ucadi import units
from ucadi.errors import ConsentError, UsageError
from ucadi.formats.schedules import ROUND_SETTINGS
from ucadi.settings import Setting, as_toml, settings_of

MAX_PROCESSES = 1024

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
PlanFile = Annotated[Path, typer.Option("--plan", help="The round's signed plan.")]
RosterFile = Annotated[Path, typer.Option("--roster", help="The federation's signed roster.")]
KeyFile = Annotated[Path, typer.Option("--key", help="One's own secret key file.")]

ReceiptFile = Annotated[
    Path | None, typer.Option("--receipt", help="The round's receipt: checks the sum, with the sites' tags.")
]
TagFiles = Annotated[
    list[Path] | None, typer.Option("--tag", help="A site's tag, or a folder of tags, with --receipt; repeatable.")
]
Unchecked = Annotated[bool, typer.Option("--unchecked", help="With --receipt: go on where tags are missing.")]


def not_checked(sites: Sequence[str]) -> str:
    """What is said of a sum that was used though the tags of these sites were missing; nothing where none were."""
    return f"\n  the sum was not checked: no tag of {', '.join(sites)}" if sites else ""


RoundKeyFile = Annotated[
    Path | None, typer.Option("--round-key", help="One's secret sealing key for this round, from site run's folder.")
]
SealingFolder = Annotated[
    Path | None,
    typer.Option("--exchange", help="Seal to the members' keys for this round, as their statements here say."),
]

SplitFile = Annotated[Path | None, typer.Option("--split", help="A split of the dataset, with --part.")]
Part = Annotated[
    str | None, typer.Option(metavar="PART", help="Only the cases in trainval, test, train-K or val-K of the split.")
]

HEADROOM = 4
Headroom = Annotated[
    int | None, typer.Option(help=f"Ranges are 2^HEADROOM times the base's [default: {HEADROOM}].", min=0, max=16)
]

MaxRounding = Annotated[
    float | None,
    typer.Option(help="Refuse an update of which rounding loses more [default: say so above 0.05].", min=0, max=1),
]

Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where torch has one.")]

LogFile = Annotated[
    Path | None, typer.Option("--log", help="Also add each line that is told, with its time, to this file.")
]

CheckpointFile = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="File to keep the training's state in, and to go on from; removed at the end."),
]
CheckpointEvery = Annotated[
    float | None, units.time(None, "0s", "Also write it this often, besides after each epoch [default: 10m].", bare="m")
]
CHECKPOINT_SECONDS = 600.0

RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file of hyper-parameters; see --set.")]


def set_option(settings: Mapping[str, Setting], help: str) -> Any:
    """The option --set KEY=VALUE for these settings, which lists and completes them; `help` says what they are."""

    def list_them(context: typer.Context, given: list[str] | None) -> list[str] | None:
        if given and "help" in given and not context.resilient_parsing:
            typer.echo(as_toml(settings))
            raise typer.Exit
        return given

    def complete(incomplete: str) -> list[tuple[str, str]]:
        key, sign, _ = incomplete.partition("=")
        if sign and key in settings:
            one = settings[key]
            values = one.choices or (("true", "false") if one.kind is bool else ())
            found = [(f"{key}={value}", "") for value in values]
        else:
            found = [(f"{key}=", one.help) for key, one in settings.items()]
        return [pair for pair in found if pair[0].startswith(incomplete)]

    return typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=f"{help}; repeatable. --set help lists them.",
        is_eager=True,  # before arguments are missed
        callback=list_them,
        autocompletion=complete,
    )


def setting_option(kind: type, name: str, unset: str = "") -> Any:
    """An option for a field of a dataclass of settings; `unset` says what holds where it is not given."""
    one = settings_of(kind)[name]
    text = f"{one.help[:-1]}: {one.wanted}." if one.choices else one.help
    text = f"{text[:-1]} [default: {unset}]." if unset else text

    def check(value: Any) -> Any:
        try:
            return value if value is None else one.check(value)
        except UsageError as error:
            raise typer.BadParameter(f"{error.message}: {error.hint}") from None

    return typer.Option(
        help=text, min=one.least, max=one.most, callback=check, autocompletion=lambda: list(one.choices)
    )


HYPERPARAMETER = "Set a hyper-parameter; wins over --recipe"
Settings = Annotated[list[str] | None, set_option(ROUND_SETTINGS, HYPERPARAMETER)]


def refuse_unused(options: Mapping[str, object], why: str) -> None:
    """Raises UsageError if any of the options was given: they would do nothing here, because of `why`.

    An option was given if its value is neither None nor False nor empty.
    """
    given = [option for option, value in options.items() if value is not None and value is not False and value != ()]
    if given:
        raise UsageError(f"{', '.join(given)}: {why}", hint=f"leave out {', '.join(given)}")


def confirm(question: str, unasked: str) -> bool:
    """What a person at the terminal answers; ConsentError with the hint `unasked` where nobody is there to ask."""
    if not sys.stdin.isatty():
        raise ConsentError("nobody is at this terminal to answer", hint=unasked)
    return typer.confirm(question, err=True)


def without(output: Path, inputs: Sequence[Path]) -> list[Path]:
    """The inputs but for the output, which a pattern such as *.enc names too when a command is run again."""
    return [path for path in inputs if path.resolve() != output.resolve()]
