"""The relay's protocol on one page: names, limits, kinds of messages, and how frames become messages.

Whoever receives a file asks for it chunk by chunk (`Want`) and the other side answers (`Chunk`), so one
pair of messages serves both directions, every question may be asked again after a loss, and the receiver
alone decides how much is on its way. `docs/formats/relay.md` is the normative text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import Any

from ucadi.kinds import SITE, Maker, Place, Readers, is_folder

VERSION = "ucadi-relay/1"
DOMAIN = "ucadi-relay"
"""The ZAP domain."""

CHUNK = 250_000
"""Bytes of a file in one message, at most."""
CREDIT = 10
"""Chunks that one transfer may have on their way."""
BUDGET = 64_000_000
"""Bytes of chunks that all transfers of a relay may have on their way together: this alone bounds its memory."""

MAX_PARTS = 3
MAX_HEADER = 1_000
MAX_FRAME = CHUNK + 1_000
"""Bytes of a frame on the wire (MAXMSGSIZE); CURVE adds 33 to what it carries."""
MAX_PAGE = 500
"""Entries in one answer to `List`."""
MAX_FILE = 4_000_000_000
"""Bytes of a file, unless the relay is told otherwise."""

IDLE_SECONDS = 120.0
"""Without any progress for so long, a transfer is dropped (what arrived is kept), and a silent peer is lost."""
HEARTBEAT_SECONDS = 15.0
HANDSHAKE_SECONDS = 10.0

_DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_NAME = 128
"""Characters of a file's name: more than any name has that is known now."""


class Code(StrEnum):
    """Why the relay refuses. The first four are worth another try."""

    BUSY = "busy"
    GONE = "gone"
    IDLE = "idle"
    SLOW_DOWN = "slow-down"
    UNKNOWN_KEY = "unknown-key"
    MALFORMED = "malformed"
    FORBIDDEN = "forbidden"
    EXISTS = "exists"
    MISSING = "missing"
    TOO_LARGE = "too-large"
    DISK_FULL = "disk-full"
    DIGEST = "digest"
    FAILED = "failed"


PASSING = frozenset({Code.BUSY, Code.GONE, Code.IDLE, Code.SLOW_DOWN})


class RefusalError(Exception):
    """A request that is not granted, with the code that goes to the peer and a sentence for people."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Peer:
    """Whom a key belongs to. It is the key that was authenticated, never a routing id, that leads here."""

    name: str
    coordinator: bool

    def may_put(self, name: str) -> bool:
        """Whether files of this name are this peer's to make: a site's its own, the coordinator's all others."""
        place = Place.parse(name)
        if place is None or place.kind.maker is Maker.COORDINATOR:
            return place is not None and self.coordinator
        return place.site == self.name and not self.coordinator

    def may_get(self, name: str) -> bool:
        """Whether files of this name are for this peer."""
        place = Place.parse(name)
        if place is None or place.kind.readers is Readers.ALL:
            return place is not None
        return self.coordinator or place.site == self.name


def is_name(name: str) -> bool:
    """Whether a file in an exchange directory may be called so: the allow-list is `ucadi.kinds`."""
    return Place.parse(name) is not None


@dataclass(frozen=True)
class Hello:
    """Client: who am I to you?"""

    request: int


@dataclass(frozen=True)
class Welcome:
    """Relay: you are `peer`; files have at most `limit` bytes here."""

    request: int
    peer: str
    coordinator: bool
    limit: int


@dataclass(frozen=True)
class List:
    """Client: what do you have at or below `prefix`, in order of name, beyond the name `after`?"""

    request: int
    prefix: str
    after: str


@dataclass(frozen=True)
class Entries:
    """Relay: these, as a JSON array of [name, size, SHA-256]; `more` if others follow."""

    request: int
    more: bool
    data: bytes


@dataclass(frozen=True)
class Put:
    """Client: take this file."""

    request: int
    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Get:
    """Client: give me this file."""

    request: int
    name: str


@dataclass(frozen=True)
class File:
    """Relay: it is of this size and SHA-256; ask for its chunks."""

    request: int
    size: int
    digest: str


@dataclass(frozen=True)
class Want:
    """Receiver of a file: send me `length` bytes from `offset`."""

    request: int
    offset: int
    length: int


@dataclass(frozen=True)
class Chunk:
    """Sender of a file: these are the bytes from `offset`."""

    request: int
    offset: int
    data: bytes | memoryview


@dataclass(frozen=True)
class Done:
    """Receiver of a file: I have it, checked, on disk, under its name."""

    request: int


@dataclass(frozen=True)
class Refuse:
    """Relay: no, or no longer, and why."""

    request: int
    code: str
    text: str


Message = Hello | Welcome | List | Entries | Put | Get | File | Want | Chunk | Done | Refuse

_KINDS: dict[bytes, type[Message]] = {
    f"{VERSION} {kind.__name__.lower()}".encode(): kind
    for kind in (Hello, Welcome, List, Entries, Put, Get, File, Want, Chunk, Done, Refuse)
}
_TAGS = {kind: tag for tag, kind in _KINDS.items()}
_HEADER_FIELDS = {
    kind: [field.name for field in fields(kind) if field.name != "data" and field.default is MISSING] for kind in _TAGS
}


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _text(value: Any, accepts: Callable[[str], object]) -> bool:
    return type(value) is str and bool(accepts(value))


_RULES: dict[str, Callable[[Any], bool]] = {
    "request": lambda value: _whole(value, 0, 1 << 53),
    "offset": lambda value: _whole(value, 0, 1 << 53),
    "size": lambda value: _whole(value, 0, 1 << 53),
    "limit": lambda value: _whole(value, 0, 1 << 53),
    "length": lambda value: _whole(value, 1, CHUNK),
    "digest": lambda value: _text(value, _DIGEST.fullmatch),
    "prefix": lambda value: _text(value, lambda text: is_folder(text) or is_name(text)),
    "name": lambda value: _text(value, is_name),
    "peer": lambda value: _text(value, re.compile(SITE).fullmatch),
    "after": lambda value: _text(value, lambda text: text == "" or is_name(text)),
    "code": lambda value: _text(value, lambda text: text in set(Code)),
    "text": lambda value: _text(value, lambda text: len(text) <= 300 and text.isprintable()),
    "coordinator": lambda value: type(value) is bool,
    "more": lambda value: type(value) is bool,
}
"""What a header's field may be, by its name."""


def encode(message: Message) -> list[bytes | memoryview]:
    """The message's frames: its tag, its header as JSON, and its data if it carries any."""
    kind = type(message)
    header = {field: getattr(message, field) for field in _HEADER_FIELDS[kind]}
    frames: list[bytes | memoryview] = [_TAGS[kind], json.dumps(header, separators=(",", ":")).encode()]
    if isinstance(message, Chunk | Entries):
        frames.append(message.data)
    return frames


def parse(frames: Sequence[memoryview]) -> Message:
    """The message that the frames are; a RefusalError (malformed) unless they are exactly one of the known ones."""
    if not 2 <= len(frames) <= MAX_PARTS:
        raise RefusalError(Code.MALFORMED, "a message of another number of parts")
    kind = _KINDS.get(bytes(frames[0][:64]))
    if kind is None:
        raise RefusalError(Code.MALFORMED, f"a message of another protocol than {VERSION}")
    has_data = kind in (Chunk, Entries)
    if len(frames) != 2 + has_data or len(frames[1]) > MAX_HEADER:
        raise RefusalError(Code.MALFORMED, f"a {kind.__name__} of other parts")
    try:
        header = json.loads(bytes(frames[1]))
    except (ValueError, RecursionError):
        raise RefusalError(Code.MALFORMED, "a header that is no JSON") from None
    if not isinstance(header, dict) or sorted(header) != sorted(_HEADER_FIELDS[kind]):
        raise RefusalError(Code.MALFORMED, f"a {kind.__name__} of other fields")
    for field, value in header.items():
        if not _RULES[field](value):
            raise RefusalError(Code.MALFORMED, f"a {kind.__name__} with a wrong {field}")
    if has_data:
        if len(frames[2]) > CHUNK:
            raise RefusalError(Code.MALFORMED, "more data than a chunk holds")
        header["data"] = frames[2]
    return kind(**header)


def encode_entries(entries: Sequence[tuple[str, int, str]]) -> bytes:
    """The data of `Entries`."""
    return json.dumps(entries, separators=(",", ":")).encode()


def _is_listed(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def parse_entries(data: bytes | memoryview) -> list[tuple[str, int, str]]:
    """The entries in the data of `Entries`; a RefusalError (malformed) unless each has a name, a size and a digest.

    Names may be such as this program does not know, of files that another version keeps.
    """
    try:
        values = json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise RefusalError(Code.MALFORMED, "a list that is no JSON") from None
    if not isinstance(values, list) or len(values) > MAX_PAGE:
        raise RefusalError(Code.MALFORMED, "a list of another length")
    for value in values:
        if not (
            isinstance(value, list)
            and len(value) == 3
            and _text(value[0], _is_listed)
            and _RULES["size"](value[1])
            and _RULES["digest"](value[2])
        ):
            raise RefusalError(Code.MALFORMED, "a list with something else than files")
    return [(name, size, digest) for name, size, digest in values]
