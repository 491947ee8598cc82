"""The command line: which commands there are, in which panel, and how they are found.

A command is a plain function that returns a frozen dataclass. Here it gains `--json` and loses its
exceptions: errors become `ucadi: error: ...`, a hint and an exit code (see `ucadi.console`). Its module is imported
only when it is run, or when its own help is asked for.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ucadi import passphrases
from ucadi._version import __version__
from ucadi.console import JSON_OPTION, execute, run
from ucadi.errors import UsageError
from ucadi.files import allow_open_files
from ucadi.parts import OPTIONAL, how_to_install
from ucadi.spellings import OLD_NAMES, respelled


class Row(NamedTuple):
    """A command: its name, where its function stands, and what it does, for a list."""

    name: str
    target: str
    summary: str


class CommandGroup(NamedTuple):
    """Commands of two words: the first one, what they are about, and the commands."""

    name: str
    summary: str
    rows: tuple[Row, ...]


PANELS: Mapping[str, tuple[Row | CommandGroup, ...]] = {
    "Data": (
        Row("demo", "demo.demo:demo", "From synthetic CTs to a result and a heatmap, in a minute."),
        Row("phantom", "commands.phantom:phantom", "Make synthetic chest CTs as DICOM."),
        CommandGroup(
            "pacs",
            "Fetch series from an archive, send objects to it.",
            (
                Row("pull", "commands.pacs:pacs_pull", "Fetch series into a folder that preprocess reads."),
                Row("push", "commands.pacs:pacs_push", "Send DICOM files to an archive."),
            ),
        ),
        Row("preprocess", "commands.preprocess:preprocess", "Make a dataset from chest CTs (DICOM, NIfTI)."),
        Row("merge", "commands.merge:merge", "Make one dataset of several."),
        Row("split", "commands.split:split", "Divide patients into training, validation and test."),
        CommandGroup(
            "translate",
            "Make contrast CTs non-contrast, and the reverse.",
            (
                Row("divide", "commands.translate_divide:translate_divide", "Separate scans with contrast medium."),
                Row("train", "commands.translate_train:translate_train", "Train a translator on unpaired scans."),
                Row("apply", "commands.translate_apply:translate_apply", "Translate a dataset."),
                Row("evaluate", "commands.translate_evaluate:translate_evaluate", "Measure how real the result looks."),
            ),
        ),
    ),
    "Model": (
        Row("init", "commands.init:init", "Make the random initial weights."),
        Row("train", "commands.train:train", "Train on a dataset, in a round or alone."),
        Row("predict", "commands.predict:predict", "Give each case its probabilities."),
        Row("evaluate", "commands.evaluate:evaluate", "Sensitivity, specificity, AUC, with intervals."),
        Row("gradcam", "commands.gradcam:gradcam", "Show where in a CT the network saw a diagnosis."),
        Row("export", "commands.export:export", "Write a network as ONNX or TorchScript."),
    ),
    "Federation set-up": (
        Row("keygen", "commands.keygen:keygen", "Make the keys of a site, a coordinator or a relay."),
        Row("passphrase", "commands.passphrase:passphrase", "Put a passphrase on a key file, or change it."),
        CommandGroup(
            "roster",
            "Say who belongs to a federation.",
            (
                Row("create", "commands.roster:roster_create", "List the members and their public keys."),
                Row("accept", "commands.roster_accept:roster_accept", "Accept a roster for one's site."),
                Row("add", "commands.roster:roster_add", "Admit members to the next roster."),
                Row("remove", "commands.roster:roster_remove", "Leave members out of the next roster."),
                Row("rotate", "commands.roster:roster_rotate", "Replace members' keys in the next roster."),
                Row("show", "commands.roster:roster_show", "Print a roster's members and fingerprints."),
            ),
        ),
        CommandGroup(
            "ledger",
            "What a key was used for.",
            (
                Row("show", "commands.ledger:ledger_show", "Tell what a key was used for."),
                Row("accept-loss", "commands.ledger:ledger_accept_loss", "Go on after a key's ledger was lost."),
            ),
        ),
        CommandGroup(
            "relay",
            "Move a federation's files.",
            (Row("serve", "commands.relay_serve:relay_serve", "Run a relay between coordinator and sites."),),
        ),
    ),
    "Rounds by themselves": (
        CommandGroup(
            "site",
            "Take part in the rounds.",
            (Row("run", "federation.site:site_run", "Take part in round after round."),),
        ),
        Row("coordinate", "federation.coordinator:coordinate", "Open and close round after round."),
        CommandGroup(
            "round",
            "Open, close and look at rounds.",
            (
                Row("open", "commands.round_open:round_open", "Open a round with a signed plan."),
                Row("status", "commands.round_status:round_status", "Say who is in, missing or refused."),
                Row("close", "commands.round_close:round_close", "Add the uploads and sign a receipt."),
                Row("times", "commands.round_times:round_times", "Say what each round's time was spent on."),
            ),
        ),
    ),
    "A round by hand": (
        Row("encrypt", "commands.encrypt:encrypt", "Encrypt a site's update."),
        Row("aggregate", "commands.aggregate:aggregate", "Add the sites' updates, encrypted or plain."),
        Row("tag", "commands.tag:tag", "Tag one's own upload, by which the sum is checked."),
        Row("partial-decrypt", "commands.partial_decrypt:partial_decrypt", "Help to open a sum (threshold mode)."),
        Row("decrypt", "commands.decrypt:decrypt", "Open the sum."),
        Row("apply", "commands.apply:apply", "Add the opened sum to the weights."),
        Row("histogram", "commands.histogram:histogram", "Count cases by score, for a pooled ROC."),
        Row("push", "commands.push:push", "Send files to the relay."),
        Row("pull", "commands.pull:pull", "Fetch files from the relay."),
        Row("wait", "commands.wait:wait", "Wait until files are at the relay."),
        CommandGroup(
            "courier",
            "Carry rounds by hand.",
            (
                Row("pack", "commands.courier:courier_pack", "Pack what a site needs into one file."),
                Row("unpack", "commands.courier:courier_unpack", "Put what was carried into an exchange directory."),
            ),
        ),
    ),
    "Trust": (
        Row("inspect", "commands.inspect:inspect_file", "Say what a file is and who signed it."),
        Row("verify", "commands.verify:verify", "Check files against a round's plan and roster."),
        Row("audit", "commands.audit:audit", "Check all rounds from the first to the last."),
    ),
    "Serving": (Row("serve", "web.serve:serve", "Serve a page that diagnoses uploaded CTs."),),
}
"""In the order of `ucadi --help`. Targets are within this package."""

MAPPED_FILES = 4096
"""Files that may be open at a time: a mapped one keeps a descriptor, and a round may have a thousand."""

EXAMPLE = "Example:"
"""Begins the last paragraph of a command's docstring, which the help shows at its end."""


def main() -> NoReturn:
    """Entry point of the console script."""
    allow_open_files(MAPPED_FILES)
    sys.exit(run(command_line()))


def command_line(*, whole: bool = False) -> TyperGroup:
    """All commands, each imported when it is needed, or if `whole` at once."""
    root = typer.Typer(
        name="ucadi",
        help="Federated learning for chest CT: encrypted rounds as files, from DICOM to heatmap.",
        cls=_Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    root.callback()(_root)
    group: TyperGroup = get_command(root)  # type: ignore[assignment]
    for panel, entries in PANELS.items():
        group.commands.update(_commands(entries, panel, whole))
    for old, name in OLD_NAMES.items() if not whole else ():
        hidden = _Later(_row(name)._replace(name=old), None)
        hidden.hidden = True
        group.commands[old] = hidden
    return group


def _commands(entries: Iterable[Row | CommandGroup], panel: str | None, whole: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, CommandGroup):
            made[entry.name] = TyperGroup(
                name=entry.name,
                help=entry.summary,
                commands=_commands(entry.rows, None, whole),
                no_args_is_help=True,
                rich_markup_mode=None,
                rich_help_panel=panel,
            )
        else:
            later = _Later(entry, panel)
            made[entry.name] = later.load() if whole else later
    return made


class _Commands(TyperGroup):
    """All commands, which its help lists by panels, each in a line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the panels."""
        del ctx
        width = max(map(len, self.commands))
        for panel in PANELS:
            with formatter.section(panel):
                rows = (one for one in self.commands.values() if getattr(one, "rich_help_panel", None) == panel)
                formatter.write_dl([(f"{one.name:<{width}}", one.help or "") for one in rows])


class _Later(TyperCommand):
    """A command that is imported when it is run, completed, or asked for its help."""

    def __init__(self, row: Row, panel: str | None) -> None:
        super().__init__(row.name, help=row.summary, rich_markup_mode=None, rich_help_panel=panel)
        self._row = row

    def load(self) -> TyperCommand:
        """The command itself."""
        function = resolve_name(f"ucadi.{self._row.target}")
        text, _, example = (inspect.getdoc(function) or "").partition(EXAMPLE)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(
            self._row.name,
            help=text.strip(),
            short_help=self._row.summary,
            epilog=f"\b\n{EXAMPLE}\n{example.strip(chr(10))}" if example else None,  # \b: as it is
            rich_help_panel=self.rich_help_panel,
        )(as_command(function))
        command: TyperCommand = get_command(app)  # type: ignore[assignment]
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """That of the command itself."""
        path = [] if parent is None else parent.command_path.split()[1:]
        present, told = respelled(" ".join([*path, self._row.name]), args)
        if JSON_OPTION not in args:
            for line in told:
                typer.echo(f"ucadi: note: {line}", err=True)
        return self.load().make_context(info_name, present, parent, **extra)


def _row(name: str) -> Row:
    return next(row for rows in PANELS.values() for row in rows if isinstance(row, Row) and row.name == name)


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda asked: _print_version(asked), is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version  # the callback has printed it


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ucadi {__version__}")
        raise typer.Exit


def as_command(function: Callable[..., Any]) -> Callable[..., None]:
    """The function as a command: with `--json`, its result printed, its errors reported with their exit code.

    A function with a parameter `as_json` of its own is told, as it reports while it runs. Where one takes a `key`,
    the command also takes the file of its passphrase.
    """
    signature = inspect.signature(function, eval_str=True)
    own = {name: parameter for name, parameter in signature.parameters.items() if name != "as_json"}
    with_key = "key" in own
    if with_key:
        own["passphrase_file"] = _option("passphrase_file", Path | None, None, _PASSPHRASE_FILE)

    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> None:
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is no number to work with", param_hint=f"--{name.replace('_', '-')}")
        if "as_json" in signature.parameters:
            options["as_json"] = as_json
        named = options.pop("passphrase_file", None) if with_key else None

        def work() -> Any:
            if named is not None and options["key"] is None:
                raise UsageError("--passphrase-file: there is no --key", hint="leave out --passphrase-file")
            with passphrases.read_from(named):
                return function(*args, **options)

        raise typer.Exit(execute(work, _installed_by, as_json=as_json))

    as_json = _option("as_json", bool, False, typer.Option(JSON_OPTION, help=_JSON_HELP))
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own.values(), as_json], return_annotation=None
    )
    command.__annotations__ = {p.name: p.annotation for p in command.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return command


_JSON_HELP = "Print the result, or the error, as JSON."
_PASSPHRASE_FILE = typer.Option(
    help=f"File with the key's passphrase, of mode 0600 [default: ${passphrases.VARIABLE}, or it is asked for]."
)


def _option(name: str, kind: Any, default: object, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _installed_by(module: str) -> str | None:
    return how_to_install([module]) if module in OPTIONAL else None
