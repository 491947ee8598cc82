"""What can go wrong, as a tree: every error knows its exit code, its kind in a word and, where it can, the way out.

The message names the thing at fault first (`site-b.update: ...`); the hint says what to do.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import ClassVar

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a limit of a file's size is full."""


class UcadiError(Exception):
    """Something that a user can mend; printed without a traceback."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"
    """The word for programs, beside the exit code; see `--json`."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(UcadiError):
    """The command was asked for something that it does not do, or that is not installed."""

    exit_code = 2
    kind = "usage"


class FormatError(UcadiError):
    """A file is not what its name or its reader says: truncated, foreign, of another version."""

    exit_code = 3
    kind = "format"


class MismatchError(UcadiError):
    """Files that are each sound do not belong together: another base, plan, roster, key or label."""

    exit_code = 4
    kind = "mismatch"


class SignatureError(MismatchError):
    """A signature, a seal or a decryption fails: another key, or bytes changed on the way."""

    kind = "signature"


class ConsentError(UcadiError):
    """People at a site have not agreed to it: to a roster, or to a round that the site's policy excludes."""

    exit_code = 11
    kind = "consent"


class Unsound(StrEnum):
    """Why the sum of a round is of no use, whoever opens it; a site states it in this word.

    The first four are found alike by all who open the sum; by the last two, some may fail where others do not.
    """

    WEIGHT = "weight"
    VALUES = "values"
    COUNTS = "counts"
    PADDING = "padding"
    SEALS = "seals"
    SHARES = "shares"


class UnsoundError(SignatureError):
    """A sum that no honest sites can have made, or that cannot be opened; `reason` is why its round is void."""

    kind = "unsound"

    def __init__(self, message: str, reason: Unsound, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class SeriesError(UcadiError):
    """A CT series cannot be used."""

    exit_code = 5
    kind = "series"


class CapacityError(UcadiError):
    """A number does not fit: a value out of range, more sites than the parameters admit."""

    exit_code = 6
    kind = "capacity"


class OutputError(UcadiError):
    """The result cannot be written: it exists already, or the disk is full or read-only."""

    exit_code = 7
    kind = "output"

    @classmethod
    def of(cls, output: object, error: OSError, *, hint: str | None = None) -> OutputError:
        """What the system said when `output`, a path or a stream, was to be written, with a way out."""
        full = error.errno in DISK_FULL
        way_out = "make room, and run again" if full else hint or "choose another place, one that you may write to"
        return cls(f"{output}: not written: {error.strerror or error}", hint=way_out)


class PacsError(UcadiError):
    """An archive cannot be reached, refuses, or sends what it was not asked for."""

    exit_code = 9
    kind = "archive"


class RelayError(UcadiError):
    """The relay cannot be reached, does not answer, does not know the key, or refuses a file."""

    exit_code = 8
    kind = "relay"
