"""The command line: registers the commands.

A command is a plain function that returns a frozen dataclass. Here it gains `--json` and loses its
exceptions: errors become `ucadi: error: ...`, a hint and an exit code (see `ucadi.console`).
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from ucadi import __version__
from ucadi.commands import with_old_spellings
from ucadi.commands.aggregate import aggregate
from ucadi.commands.apply import apply
from ucadi.commands.audit import audit
from ucadi.commands.courier import courier_pack, courier_unpack
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.evaluate import evaluate
from ucadi.commands.export import export
from ucadi.commands.gradcam import gradcam
from ucadi.commands.histogram import histogram
from ucadi.commands.init import init
from ucadi.commands.inspect import inspect_file
from ucadi.commands.keygen import keygen
from ucadi.commands.merge import merge
from ucadi.commands.pacs import pacs_pull, pacs_push
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.phantom import phantom
from ucadi.commands.predict import predict
from ucadi.commands.preprocess import preprocess
from ucadi.commands.pull import pull
from ucadi.commands.push import push
from ucadi.commands.relay_serve import relay_serve
from ucadi.commands.roster import roster_add, roster_create, roster_remove, roster_rotate, roster_show
from ucadi.commands.round_close import round_close
from ucadi.commands.round_open import round_open
from ucadi.commands.round_status import round_status
from ucadi.commands.round_times import round_times
from ucadi.commands.split import split
from ucadi.commands.train import train
from ucadi.commands.translate_apply import translate_apply
from ucadi.commands.translate_divide import translate_divide
from ucadi.commands.translate_evaluate import translate_evaluate
from ucadi.commands.translate_train import translate_train
from ucadi.commands.verify import verify
from ucadi.commands.watch import watch
from ucadi.console import JSON_OPTION, execute, run
from ucadi.demo.demo import demo
from ucadi.federation.coordinator import coordinate
from ucadi.federation.site import site_run
from ucadi.formats.schedules import ROUND_SETTINGS
from ucadi.parts import OPTIONAL, how_to_install
from ucadi.settings import settings_of
from ucadi.translation.recipe import TranslationRecipe
from ucadi.web.serve import serve

app = typer.Typer(
    name="ucadi",
    help="Federated learning for chest CT: encrypted rounds as files, from DICOM to heatmap.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

MAPPED_FILES = 4096
"""Files that may be open at a time, where the system lets a process have so many."""


def main() -> NoReturn:
    """Entry point of the console script."""
    _allow_many_files()
    sys.exit(run(app))


def _allow_many_files() -> None:
    """A mapped file keeps a descriptor; a round may have a thousand, more than a process usually begins with."""
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAPPED_FILES if hard == resource.RLIM_INFINITY else min(MAPPED_FILES, hard)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ucadi {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version  # the callback has printed it


def as_command(function: Callable[..., Any]) -> Callable[..., None]:
    """The function as a command: with `--json`, its result printed, its errors reported with their exit code.

    A function with a parameter `as_json` of its own is told, as it reports while it runs.
    """
    signature = inspect.signature(function, eval_str=True)
    own = {name: parameter for name, parameter in signature.parameters.items() if name != "as_json"}

    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> None:
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is no number to work with", param_hint=f"--{name.replace('_', '-')}")
        if "as_json" in signature.parameters:
            options["as_json"] = as_json
        raise typer.Exit(execute(lambda: function(*args, **options), _installed_by, as_json=as_json))

    as_json = inspect.Parameter(
        "as_json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option(JSON_OPTION, help="Print the result, or the error, as JSON.")],
    )
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own.values(), as_json], return_annotation=None
    )
    command.__annotations__ = {p.name: p.annotation for p in command.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return command


def _installed_by(module: str) -> str | None:
    return how_to_install([module]) if module in OPTIONAL else None


COMMANDS: tuple[Callable[..., Any], ...] = (
    demo,
    phantom,
    preprocess,
    merge,
    split,
    init,
    train,
    predict,
    evaluate,
    histogram,
    gradcam,
    export,
    keygen,
    encrypt,
    aggregate,
    partial_decrypt,
    decrypt,
    apply,
    verify,
    audit,
    inspect_file,
    coordinate,
    push,
    pull,
    watch,
    serve,
)
"""In the order of `ucadi --help`."""

GROUPS: tuple[tuple[str, str, tuple[Callable[..., Any], ...]], ...] = (
    (
        "roster",
        "Who belongs to a federation.",
        (roster_create, roster_add, roster_remove, roster_rotate, roster_show),
    ),
    (
        "translate",
        "Contrast CTs made non-contrast, and the reverse.",
        (translate_divide, translate_train, translate_apply, translate_evaluate),
    ),
    ("site", "A site's part in the rounds.", (site_run,)),
    ("round", "The rounds of a federation.", (round_open, round_status, round_close, round_times)),
    ("courier", "Rounds carried by hand.", (courier_pack, courier_unpack)),
    ("pacs", "Images from an archive and to it.", (pacs_pull, pacs_push)),
    ("relay", "The relay, which moves a federation's files.", (relay_serve,)),
)
"""Commands of two words, with the help of the first."""


OLD_SPELLINGS: Mapping[Callable[..., Any], type[TyperCommand]] = {
    train: with_old_spellings(ROUND_SETTINGS),
    round_open: with_old_spellings(ROUND_SETTINGS),
    translate_train: with_old_spellings(settings_of(TranslationRecipe), epochs="total_epochs"),
}
"""Commands that take hyper-parameters as the options that they were."""


def _register() -> None:
    for function in COMMANDS:
        name = function.__name__.removesuffix("_file").replace("_", "-")
        app.command(name, cls=OLD_SPELLINGS.get(function))(as_command(function))
    for group, explanation, functions in GROUPS:
        subcommands = typer.Typer(help=explanation, no_args_is_help=True)
        for function in functions:
            name = function.__name__.removeprefix(f"{group}_")
            subcommands.command(name, cls=OLD_SPELLINGS.get(function))(as_command(function))
        app.add_typer(subcommands, name=group)


_register()
