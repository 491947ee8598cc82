"""A site's side of the relay: list, put, get, await; each goes on where it was, whatever happens to the line.

A connection that fails is thrown away, and a fresh one made after a pause that doubles each time. There is
no limit on how long a transfer takes, only on how long it makes no progress.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import zmq

from ucadi.errors import MismatchError, OutputError, RelayError, UcadiError, UsageError
from ucadi.files import file_digest
from ucadi.filetypes import unreadable
from ucadi.identity import PublicKeys, SecretKeys
from ucadi.kinds import is_folder
from ucadi.progress import track
from ucadi.relay import protocol
from ucadi.relay.connection import Connection, LostError
from ucadi.relay.protocol import (
    CHUNK,
    CREDIT,
    IDLE_SECONDS,
    PASSING,
    Chunk,
    Code,
    Done,
    Entries,
    File,
    Get,
    Hello,
    List,
    Message,
    Put,
    RefusalError,
    Refuse,
    Want,
    Welcome,
)
from ucadi.relay.store import Entry, Store

T = TypeVar("T")
M = TypeVar("M", bound=Message)

Talk = Generator[int, None, T]
"""A conversation: yields how many bytes of a file are where they belong, returns its result, may begin again."""

PATIENCE_SECONDS = 600.0
"""How long a line may be dead before a client gives up: longer than a router's restart or a lost VPN."""

_FIRST_SECONDS = 20.0
"""How long the first connection may take: a wrong address is not worth the patience."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_POLL_SECONDS = 1.0

_HINTS = {
    Code.FORBIDDEN: "sites put only their own files into open rounds; the coordinator puts all others",
    Code.EXISTS: "files are never replaced: if this one is right, ask the relay's operator to remove the other",
    Code.TOO_LARGE: "the relay's operator can raise --max-size",
    Code.DISK_FULL: "ask the relay's operator to make room; nothing is lost, run again then",
    Code.DIGEST: "the file changed while it was sent: run again when nobody writes to it",
    Code.UNKNOWN_KEY: "the roster at the relay must list this key's card: ask the coordinator",
    Code.MALFORMED: "are relay and site of the same version of ucadi?",
}


class FileRefusedError(RelayError):
    """The relay's refusal of one file, which says nothing of others."""


class UnreachableError(RelayError):
    """The relay could not be reached, or made no progress, for as long as the client's patience: it may pass."""


class Client:
    """A site's, or the coordinator's, access to the relay at `address` that holds the keys `relay`.

    Connects when first used. `patience` is in seconds; see PATIENCE_SECONDS. Every method raises RelayError when the
    relay cannot be reached, is another than `relay`, does not know these keys, or refuses.
    """

    def __init__(
        self, address: str, relay: PublicKeys, keys: SecretKeys, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._address: Final = address
        self._relay: Final = relay
        self._keys: Final = keys
        self._patience: Final = patience
        self._context: Final = zmq.Context[zmq.Socket[bytes]]()
        self._connection: Connection | None = None
        self._welcome: Welcome | None = None
        self._requests: Final = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._disconnect()
        self._context.term()

    def welcome(self) -> Welcome:
        """What the relay takes these keys for, and its limits."""

        def talk(connection: Connection) -> Talk[Welcome]:
            return self._ask(connection, Hello(next(self._requests)), Welcome)
            yield  # a conversation without a file

        return _result(self._converse(talk, self._patience))

    def entries(self, prefix: str = "", *, patience: float | None = None) -> list[Entry]:
        """The files at the relay at or below `prefix` (`rounds/0003`), sorted by name. What is no part of the exchange,
        or not yet for this version of ucadi, is passed over."""
        if not (is_folder(prefix) or protocol.is_name(prefix)):
            raise UsageError(f"{prefix!r} is no place in an exchange directory", hint="for example rounds/0003")

        def talk(connection: Connection) -> Talk[list[Entry]]:
            found: list[Entry] = []
            more, after = True, ""
            while more:
                page = self._ask(connection, List(next(self._requests), prefix, after), Entries)
                entries = [Entry(*entry) for entry in _checked(lambda: protocol.parse_entries(page.data))]  # noqa: B023
                found += (entry for entry in entries if protocol.is_name(entry.name))
                more, after = page.more and bool(entries), entries[-1].name if entries else ""
                yield len(found)
            return found

        return _result(self._converse(talk, self._patience if patience is None else patience))

    def put(self, files: Mapping[str, Path]) -> tuple[str, ...]:
        """Sends files to the relay, by the names they shall have there; the names of those it did not have yet.

        Files that are refused do not keep the others from being sent; they are raised as one error at the end.
        """
        sizes = {name: _file_size(path) for name, path in files.items()}

        def send_one(name: str) -> Generator[None, None, bool]:
            entry = Entry(name, sizes[name], file_digest(files[name]))
            talk = self._converse(lambda connection: self._put(connection, files[name], entry), self._patience)
            return (yield from _steps(talk, entry.size))

        return self._each(send_one, sizes, "sending")

    def get(self, entries: Iterable[Entry], store: Store) -> tuple[str, ...]:
        """Fetches files from the relay into `store`; the names of those it did not have yet.

        Raises MismatchError where the store has a file of that name with other content.
        """
        sizes = {entry.name: entry.size for entry in entries}

        def fetch_one(name: str) -> Generator[None, None, bool]:
            talk = self._converse(lambda connection: self._get(connection, name, store), self._patience)
            return (yield from _steps(talk, sizes[name]))

        return self._each(fetch_one, sizes, "fetching")

    def wait(self, names: Iterable[str], seconds: float | None = None) -> list[Entry]:
        """The entries of all these names, as soon as they exist; RelayError, naming those missing, after `seconds`."""
        awaited, found = dict.fromkeys(names), dict[str, Entry]()
        folders = sorted({name.rpartition("/")[0] or name for name in awaited})
        end = float("inf") if seconds is None else time.monotonic() + seconds
        while True:
            for folder in folders:
                patience = max(0.0, min(self._patience, end - time.monotonic()))
                listed = {entry.name: entry for entry in self.entries(folder, patience=patience)}
                found |= {name: listed[name] for name in awaited if name in listed}
            missing = [name for name in awaited if name not in found]
            if not missing:
                return [found[name] for name in awaited]
            if time.monotonic() + _POLL_SECONDS > end:
                raise RelayError(f"not at the relay after {seconds:g} s: {', '.join(missing)}")
            time.sleep(_POLL_SECONDS)

    # conversations

    def _put(self, connection: Connection, path: Path, entry: Entry) -> Talk[bool]:
        request = next(self._requests)
        connection.send(Put(request, entry.name, entry.size, entry.digest))
        begun_at: int | None = None
        with path.open("rb") as file:
            while True:
                match self._receive(connection, request):
                    case Want(_, offset, length):
                        begun_at = offset if begun_at is None else begun_at
                        file.seek(offset)
                        connection.send(Chunk(request, offset, file.read(length)))
                        yield offset
                    case Done():
                        return begun_at is not None or not entry.size
                    case Refuse(_, Code.DIGEST, text) if begun_at:
                        raise LostError(text)  # what the relay had kept was damaged, and is gone now
                    case Refuse() as refuse:
                        raise _refused(entry.name, refuse)
                    case other:
                        raise _unexpected(other)

    def _get(self, connection: Connection, name: str, store: Store) -> Talk[bool]:
        file = self._ask(connection, Get(next(self._requests), name), File)
        incoming = _checked(lambda: store.receive(name, file.size, file.digest))
        if incoming is None:
            connection.send(Done(file.request))
            return False
        begun_at = asked = incoming.received
        try:
            while incoming.received < file.size:
                while asked < file.size and asked - incoming.received < CREDIT * CHUNK:
                    length = min(CHUNK, file.size - asked)
                    connection.send(Want(file.request, asked, length))
                    asked += length
                match self._receive(connection, file.request):
                    case Chunk(_, offset, data) if offset == incoming.received:
                        _checked(lambda: incoming.append(data))
                    case Refuse() as refuse:
                        raise _refused(name, refuse)
                    case other:
                        raise _unexpected(other)
                yield incoming.received
            try:
                _checked(incoming.publish)
            except RelayError as error:
                if begun_at:
                    raise LostError(error.message) from None  # what was kept here was damaged, and is gone now
                raise
        finally:
            incoming.suspend()
        connection.send(Done(file.request))
        return True

    def _ask(self, connection: Connection, question: Hello | List | Get, kind: type[M]) -> M:
        connection.send(question)
        match self._receive(connection, question.request):
            case Refuse() as refuse:
                raise _refused(getattr(question, "name", "the request"), refuse)
            case answer if isinstance(answer, kind):
                return answer
            case other:
                raise _unexpected(other)

    def _receive(self, connection: Connection, request: int) -> Message:
        """The next message for this request; what is left of earlier ones is passed over."""
        while True:
            message = connection.receive(IDLE_SECONDS)
            if message.request in (request, 0):  # 0: the relay could not read the number
                return message

    def _converse(self, talk: Callable[[Connection], Talk[T]], patience: float) -> Talk[T]:
        """Holds a conversation on as many connections, one after the other, as it takes."""
        furthest, pause, since = -1, _FIRST_PAUSE_SECONDS, time.monotonic()
        while True:
            try:
                conversation = talk(self._connected())
                while True:
                    try:
                        position = next(conversation)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                    if position > furthest:
                        furthest, pause, since = position, _FIRST_PAUSE_SECONDS, time.monotonic()
                        yield position
            except LostError as lost:
                self._disconnect()
                limit = min(patience, _FIRST_SECONDS) if self._welcome is None else patience
                if time.monotonic() + pause - since > limit:
                    raise UnreachableError(
                        f"{lost}; no progress for {time.monotonic() - since:.0f} s",
                        hint="is the relay running, and the address right? Run again: what has arrived is continued",
                    ) from None
                time.sleep(pause * random.uniform(0.5, 1.0))  # not all sites at the same moment
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self._context, self._address, self._relay.transport, self._keys)
            self._welcome = self._ask(self._connection, Hello(next(self._requests)), Welcome)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _each(
        self, transfer: Callable[[str], Generator[None, None, bool]], sizes: Mapping[str, int], label: str
    ) -> tuple[str, ...]:
        """Transfers files one after the other under one display of progress."""
        moved: list[str] = []
        failed: list[UcadiError] = []

        def steps() -> Iterator[None]:
            for name in sizes:
                try:
                    if (yield from transfer(name)):
                        moved.append(name)
                except (FileRefusedError, MismatchError) as error:
                    failed.append(error)

        for _ in track(steps(), label, sum(map(_step_count, sizes.values()))):
            pass
        if len(failed) > 1:
            raise RelayError("; ".join(error.message for error in failed), hint=failed[0].hint)
        if failed:
            raise failed[0]
        return tuple(moved)


def _step_count(size: int) -> int:
    return max(1, -(-size // CHUNK))


def _steps(talk: Talk[T], size: int) -> Generator[None, None, T]:
    """A conversation as steps of a display: one for each chunk, at least one."""
    shown = 0
    while True:
        try:
            reached = next(talk) // CHUNK
        except StopIteration as end:
            for _ in range(shown, _step_count(size)):
                yield
            result: T = end.value
            return result
        for _ in range(shown, reached):
            yield
        shown = max(shown, reached)


def _result(talk: Talk[T]) -> T:
    while True:
        try:
            next(talk)
        except StopIteration as end:
            result: T = end.value
            return result


def _refused(name: str, refuse: Refuse) -> Exception:
    code = Code(refuse.code)
    if code in PASSING:
        return LostError(f"the relay says: {refuse.text}")
    return FileRefusedError(f"{name}: the relay refuses: {refuse.text}", hint=_HINTS.get(code))


def _unexpected(message: Message) -> LostError:
    return LostError(f"the relay answers out of turn ({type(message).__name__})")


def _checked(action: Callable[[], T]) -> T:
    """The result of something done here, with a RefusalError of this side's store as an error of this side."""
    try:
        return action()
    except RefusalError as refusal:
        match refusal.code:
            case Code.EXISTS:
                raise MismatchError(
                    f"{refusal.text} than at the relay", hint="move the file here away if the relay's is the right one"
                ) from None
            case Code.DISK_FULL:
                raise OutputError(f"not written: {refusal.text}", hint="make room and run again") from None
            case _:
                raise RelayError(refusal.text) from None


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None
