"""ucadi passphrase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ucadi import passphrases
from ucadi.commands import KeyFile, refuse_unused
from ucadi.formats import keys as key_format


@dataclass(frozen=True)
class PassphraseResult:
    """The key file, and whether a passphrase protects it now."""

    key: Path
    protected: bool

    def __str__(self) -> str:
        return f"{self.key}: " + ("encrypted; without its passphrase it is lost" if self.protected else "no passphrase")


def passphrase(
    *,
    key: KeyFile,
    new_passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the new passphrase, of mode 0600 [default: it is asked for].")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Leave the key without a passphrase.")] = False,
) -> PassphraseResult:
    """Put a passphrase on a key file, change it, or take it off. The keys stay the same, and so does the card.

    Copies of the file as it was stay as they were: remove them.

    Example:
        ucadi passphrase --key site-a.key --new-passphrase-file site-a.passphrase
    """
    if remove:
        refuse_unused({"--new-passphrase-file": new_passphrase_file}, "the passphrase is taken off")
    keys = key_format.read_key(key)
    new = None if remove else passphrases.ask_new(key, new_passphrase_file)
    key_format.write_key(key, keys, new, force=True)
    return PassphraseResult(key, not remove)
