"""The ledger of a key: what its owner accepted, encrypted, answered and signed, each line chained to the one before.

It lies beside the key and belongs to its public part. Nothing in it is changed or removed, and a line is on the disk
before what it tells of leaves. Who would do again what is in it, with other content, is refused from it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from ucadi.errors import FormatError, MismatchError, OutputError
from ucadi.files import flush, read_bytes, write_file, writing
from ucadi.formats.container import canonical_json, parse_canonical_json
from ucadi.formats.signed import Fields
from ucadi.identity import PublicKeys
from ucadi.kinds import Format

FORMAT = Format.LEDGER.id

MAX_BYTES = 1 << 28
"""A line has some 400 bytes, so this is more than a key can have to tell of."""


class What(StrEnum):
    """What a line tells of."""

    ACCEPTED = "accepted"
    ENCRYPTED = "encrypted"
    COUNTED = "counted"
    ANSWERED = "answered"
    SUMMED = "summed"
    VOID = "void"
    REPLACED = "replaced"
    LOST = "lost"


@dataclass(frozen=True)
class Entry:
    """One line. All but `what` may be empty.

    `number` is the round, or a roster's sequence; `document` the digest of the plan or the roster, of the public keys
    that replace these, or of a line that was lost; `content` that of the update, the counts or the contributions;
    `base` the model that an update was made from, or that cases were counted by; `sites` whose uploads were summed.
    """

    what: What
    federation: str = ""
    number: int = 0
    document: str = ""
    content: str = ""
    base: str = ""
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """All lines of a ledger, and the digests that they have as links of the chain, the first line's before them."""

    entries: tuple[Entry, ...]
    links: tuple[str, ...]

    @property
    def head(self) -> str:
        """Digest of the last line: what a signed document shows, so that lines that were lost are missed."""
        return self.links[-1]

    def of(self, what: What, federation: str) -> list[Entry]:
        """The lines of a kind on a federation."""
        return [entry for entry in self.entries if (entry.what, entry.federation) == (what, federation)]


class Ledger:
    """The ledger at a path, which must be that of `keys` or of keys that they replace."""

    def __init__(self, path: Path, keys: PublicKeys) -> None:
        self.path: Final = path
        self._keys: Final = keys

    @classmethod
    def beside(cls, key: Path, keys: PublicKeys) -> Ledger:
        """The ledger of a key file, wherever a link to it may lie."""
        return cls(key.resolve().with_suffix(".ledger"), keys)

    def begin(self) -> None:
        """Writes the first line of a key's ledger; one that is there is never replaced."""
        document = {**Format.LEDGER.head, "key": self._keys.digest, "site": self._keys.name}
        write_file(self.path, _line(document), mode=0o600)

    def read(self) -> History:
        """All that it tells; MismatchError where there is none, or that of another key."""
        try:
            return self._parse(read_bytes(self.path, MAX_BYTES, words=Format.LEDGER.words))
        except FormatError as error:
            if self.path.exists():
                raise
            raise MismatchError(
                f"{self.path}: the ledger of this key is not here, so nobody knows what it has signed",
                hint=f"bring {self.path.name} here with the key; if it is lost, ucadi ledger accept-loss",
            ) from error

    @contextmanager
    def adding(self) -> Iterator[Draft]:
        """All that it tells, held so that no other process adds to it meanwhile, and the means to add to it."""
        self.read()
        with writing(self.path), self.path.open("r+b") as file:
            _hold(file.fileno(), self.path)
            content = file.read()
            kept = content.rfind(b"\n") + 1
            file.truncate(kept)  # half a line is of one who was killed before anything left
            file.seek(kept)
            draft = Draft(self._parse(content))
            yield draft
            if draft.added:
                file.write(b"".join(draft.added))
                file.flush()
                os.fsync(file.fileno())
                flush(self.path.parent)

    def add(self, entry: Entry) -> None:
        """Adds a line to which nothing in the ledger can be opposed."""
        with self.adding() as draft:
            draft.add(entry)

    def hand_on(self, other: Ledger) -> None:
        """Makes this the ledger of keys that replace these: it moves to their place, and a link to it stays here."""
        self.add(Entry(What.REPLACED, document=other._keys.digest))
        with writing(other.path):
            shutil.move(self.path.resolve(), other.path)
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(os.path.relpath(other.path, self.path.parent))

    def _parse(self, content: bytes) -> History:
        told = parse(content, self.path.name)
        if self._keys.digest not in told.keys:
            raise MismatchError(
                f"{self.path}: the ledger of another key of {told.site}",
                hint=f"bring the ledger of the key {self._keys.fingerprint}",
            )
        return told.history


@dataclass(frozen=True)
class Told:
    """What a ledger says of itself: whose it is, the digests of that party's public keys, and its history."""

    site: str
    keys: frozenset[str]
    history: History


def parse(content: bytes, name: str) -> Told:
    """What the bytes of a ledger say, up to its last whole line; `name` is the file's, for errors."""
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    if not lines:
        raise FormatError(f"{name}: an empty ledger", hint="bring it back from where it was whole")
    first = Fields(parse_canonical_json(lines[0][:-1], name), name)
    if (first.values.get("format"), first.values.get("version")) != tuple(Format.LEDGER.head.values()):
        raise FormatError(f"{name} is not a ledger", hint="use the file as keygen made it")
    keys = {first.digest("key")}
    entries: list[Entry] = []
    links = [_digest(lines[0])]
    for number, line in enumerate(lines[1:], start=2):
        fields = Fields(parse_canonical_json(line[:-1], name), f"{name}: line {number}")
        if fields.digest("previous") != links[-1]:
            raise MismatchError(
                f"{name}: line {number} does not follow from the one before",
                hint="it was changed by hand; bring it back from where it was whole",
            )
        entry = _entry(fields)
        if entry.what is What.REPLACED:
            keys.add(entry.document)
        entries.append(entry)
        links.append(_digest(line))
    return Told(first.text("site"), frozenset(keys), History(tuple(entries), tuple(links)))


class Draft:
    """A ledger's history, and the lines that are being added to it."""

    def __init__(self, history: History) -> None:
        self.history: Final = history
        self.added: Final[list[bytes]] = []
        self._head = history.head

    def add(self, entry: Entry) -> None:
        """Adds a line; it is on the disk when the ledger is let go of."""
        line = _line({"previous": self._head, **asdict(entry)})
        self._head = _digest(line)
        self.added.append(line)


def _line(values: dict[str, object]) -> bytes:
    return canonical_json(values).encode("ascii") + b"\n"


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _entry(fields: Fields) -> Entry:
    what = fields.text("what")
    if what not in set(What):
        raise FormatError(f"a ledger that tells of {what!r}", hint="a later release of ucadi wrote it: use that one")
    texts = {name: fields.text(name) for name in ("federation", "document", "content", "base")}
    return Entry(What(what), number=fields.number("number"), **texts, sites=tuple(fields.texts("sites")))


def _hold(handle: int, path: Path) -> None:
    """Waits until no other process holds the file; the system lets go of it however this one ends."""
    try:
        import fcntl
    except ModuleNotFoundError:  # not on Windows: there, one process at a time uses a key
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be locked: {error.strerror}", hint="keep key and ledger on a disk of this machine"
        ) from None
