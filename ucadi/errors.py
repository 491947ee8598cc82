"""What can go wrong, as a tree: every error knows its exit code and, where it can, the way out.

The message names the thing at fault first (`site-b.update: ...`); the hint says what to do.
"""

from __future__ import annotations

from typing import ClassVar


class UcadiError(Exception):
    """Something that a user can mend; printed without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(UcadiError):
    """The command was asked for something that it does not do, or that is not installed."""

    exit_code = 2


class FormatError(UcadiError):
    """A file is not what its name or its reader says: truncated, foreign, of another version."""

    exit_code = 3


class MismatchError(UcadiError):
    """Files that are each sound do not belong together: another base, plan, roster, key or label."""

    exit_code = 4


class SignatureError(MismatchError):
    """A signature, a seal or a decryption fails: another key, or bytes changed on the way."""


class SeriesError(UcadiError):
    """A CT series cannot be used."""

    exit_code = 5


class CapacityError(UcadiError):
    """A number does not fit: a value out of range, more sites than the parameters admit."""

    exit_code = 6


class OutputError(UcadiError):
    """The result cannot be written: it exists already, or the disk is full or read-only."""

    exit_code = 7


class PacsError(UcadiError):
    """An archive cannot be reached, refuses, or sends what it was not asked for."""

    exit_code = 9


class RelayError(UcadiError):
    """The relay cannot be reached, does not answer, does not know the key, or refuses a file."""

    exit_code = 8
