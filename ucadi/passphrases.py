"""Passphrases of key files: from a file that is named, or from the terminal; never from the command line.

A file is for services and pipelines. It is named by --passphrase-file, or by UCADI_PASSPHRASE_FILE in the environment.
"""

from __future__ import annotations

import getpass
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from ucadi.errors import UsageError
from ucadi.files import read_secret

VARIABLE: Final = "UCADI_PASSPHRASE_FILE"

LEAST: Final = 12
"""Fewest characters of a new passphrase."""

_MOST = 1024

_named: ContextVar[Path | None] = ContextVar("passphrase_file", default=None)


@contextmanager
def read_from(path: Path | None) -> Iterator[None]:
    """Meanwhile passphrases are read from this file, if it is one, before the environment is asked."""
    token = _named.set(path)
    try:
        yield
    finally:
        _named.reset(token)


def ask(key: Path) -> str:
    """The passphrase of a key file.

    Raises UsageError where nobody can be asked, FormatError or SignatureError for a file that cannot be used.
    """
    given = _named.get() or of_environment()
    return _from_file(given) if given else _normal(_from_terminal(key, f"Passphrase of {key}: "))


def ask_new(key: Path, source: Path | None) -> str:
    """A new passphrase for a key file: from the file `source`, or asked for twice. Errors as those of `ask`."""
    if source is not None:
        return _long_enough(_from_file(source), f"{source}: ")
    first = _long_enough(_normal(_from_terminal(key, f"New passphrase for {key}: ")))
    if _normal(_from_terminal(key, "The same again: ")) != first:
        raise UsageError("the two passphrases differ", hint="nothing was written: try again")
    return first


def named() -> Path | None:
    """The file that the command line names."""
    return _named.get()


def refuse_unneeded(key: Path) -> None:
    """Raises UsageError if a file was named for a key that has no passphrase."""
    if (path := _named.get()) is not None:
        raise UsageError(f"{path}: not wanted, as {key} has no passphrase", hint="leave out --passphrase-file")


def of_environment() -> Path | None:
    """The file that the environment names."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def _from_file(path: Path) -> str:
    return _normal(read_secret(path, "passphrase", "a passphrase (a line of text)", most=4 * _MOST))


def _from_terminal(key: Path, prompt: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{key}: its passphrase is wanted, and there is no terminal to ask on",
            hint=f"write it to a file of mode 0600, and set --passphrase-file FILE or {VARIABLE}=FILE",
        )
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise UsageError("no passphrase was given") from None


def _normal(text: str) -> str:
    """The same characters, however a keyboard or an editor composed them."""
    return unicodedata.normalize("NFC", text)


def _long_enough(passphrase: str, whose: str = "") -> str:
    if not LEAST <= len(passphrase) <= _MOST:
        raise UsageError(
            f"{whose}a passphrase of {len(passphrase)} characters; {LEAST} to {_MOST} are wanted",
            hint="several words that you make up by chance are easy to keep and hard to guess",
        )
    return passphrase
