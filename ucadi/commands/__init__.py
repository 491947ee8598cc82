"""One module, one command: a function on files, whose body is read, compute, write.

The options that many commands share are described here once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ucadi.errors import UsageError
from ucadi.formats.schedules import ROUND_SETTINGS
from ucadi.settings import Setting, as_toml, settings_of

MAX_SECONDS = 366 * 86400.0
"""Longest wait that can be asked for: a year."""

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

Headroom = Annotated[int, typer.Option(help="Ranges are 2^HEADROOM times the base's.", min=0, max=16)]

Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where torch has one.")]

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

RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file of hyper-parameters; see --set.")]


def set_option(settings: Mapping[str, Setting]) -> Any:
    """The option --set KEY=VALUE for these settings, which lists and completes them."""

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
        help="Set a hyper-parameter; wins over --recipe; repeatable. --set help lists them.",
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


def with_old_spellings(settings: Mapping[str, Setting], **others: str) -> type[TyperCommand]:
    """A command that takes `--learning-rate 0.1` as `--set learning_rate=0.1`, for this release.

    `others` are settings by the names that their options had.
    """
    names = {name: name for name, one in settings.items() if one.kind is not bool and "." not in name} | others
    keys = {f"--{name.replace('_', '-')}": key for name, key in names.items()}

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            told: list[str] = []
            rest = iter(args)
            for word in rest:
                option, sign, value = word.partition("=")
                if word == "--":
                    told += [word, *rest]
                elif option in keys:
                    values = [value] if sign else list(islice(rest, 1))
                    told += ["--set", *(f"{keys[option]}={value}" for value in values)]
                else:
                    told.append(word)
            return super().parse_args(ctx, told)

    return Command


Settings = Annotated[list[str] | None, set_option(ROUND_SETTINGS)]


def without(output: Path, inputs: Sequence[Path]) -> list[Path]:
    """The inputs but for the output, which a pattern such as *.enc names too when a command is run again."""
    return [path for path in inputs if path.resolve() != output.resolve()]
