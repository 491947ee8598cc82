"""ucadi push."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi import filetypes
from ucadi.commands import KeyFile, refuse_unused
from ucadi.errors import FormatError, UsageError
from ucadi.formats import keys as key_format
from ucadi.kinds import Place


@dataclass(frozen=True)
class PushResult:
    """Names of the files sent, and of those that the relay had already."""

    relay: str
    sent: tuple[str, ...]
    present: tuple[str, ...]

    def __str__(self) -> str:
        lines = [*(f"{name}: sent" for name in self.sent), *(f"{name}: there already" for name in self.present)]
        return "\n".join(lines) or f"nothing to send to {self.relay}"


def push(
    files: Annotated[list[Path] | None, typer.Argument(help="Files to send [default: all of --exchange].")] = None,
    *,
    relay: Annotated[str, typer.Option("--relay", help="The relay's address, tcp://HOST:PORT.")],
    relay_card: Annotated[Path, typer.Option("--relay-card", help="The relay's card.")],
    key: KeyFile,
    exchange: Annotated[
        Path | None, typer.Option("--exchange", help="One's own exchange directory: files are named by it.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--as", help="Name at the relay, one for each FILE, in their order.")
    ] = None,
) -> PushResult:
    r"""Send files to the relay, continuing where an earlier attempt ended.

    With --exchange and no FILE, sends all of one's own files there that the relay lacks. A file appears at
    the relay whole or not at all, and is never replaced; sending it twice changes nothing.

    Example:
        ucadi push --exchange exchange --relay tcp://relay.example.org:7400 \
            --relay-card relay.card --key site-a.key
    """
    from ucadi.relay.client import Client
    from ucadi.relay.protocol import Peer
    from ucadi.relay.store import Store

    if not files:
        refuse_unused({"--as": tuple(names or ())}, "names go with FILEs; without any, files keep their own")
    elif names:
        refuse_unused({"--exchange": exchange}, "--as names every file")
    keys = key_format.read_key(key)
    for path in files or []:
        if not path.is_file():
            raise FormatError(filetypes.not_a_file(path), hint="name the files to send, or --exchange DIR alone")
    if exchange is not None and not exchange.is_dir():
        raise FormatError(filetypes.no_folder(exchange, "an exchange directory"), hint="is the path right?")
    with Client(relay, key_format.read_card(relay_card).keys, keys) as client:
        if files:
            wanted = dict(zip(_names(files, names, exchange), files, strict=True))
        elif exchange is not None:
            me = client.welcome()
            here = [name for name in Store(exchange).names() if Peer(me.peer, me.coordinator).may_put(name)]
            there = {entry.name for entry in client.entries()}
            wanted = {name: exchange / name for name in here if name not in there}
        else:
            raise UsageError("nothing to send", hint="ucadi push FILE --as NAME, or ucadi push --exchange DIR")
        sent = client.put(wanted)
    return PushResult(relay, sent, tuple(name for name in wanted if name not in sent))


def _names(files: list[Path], names: list[str] | None, exchange: Path | None) -> list[str]:
    if names is not None:
        if len(names) != len(files):
            raise UsageError(f"{len(files)} files, {len(names)} names", hint="one --as NAME for each FILE")
        return [Place.named(name).name for name in names]
    if exchange is None:
        raise UsageError("under which names?", hint="--as rounds/0001/uploads/SITE.enc, or --exchange DIR")
    try:
        within = [path.resolve().relative_to(exchange.resolve()).as_posix() for path in files]
    except ValueError:
        raise UsageError(f"not all files are in {exchange}", hint="--as NAME for files elsewhere") from None
    return [Place.named(name).name for name in within]
