"""Every kind of file that ucadi writes, in two tables: formats, and the names under which files travel.

All that knows kinds reads them here: the exchange directory, the relay, couriers, what `inspect` and error messages
call a file, and the tables of `docs/formats`. A new kind is a row here and a module that reads and writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from ucadi.errors import UsageError

SITE = "[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
"""A name of a site or a coordinator, as a regular expression."""


PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


class Form(StrEnum):
    """How the bytes of a file are laid out."""

    CONTAINER = "container"
    DOCUMENT = "document"
    ARCHIVE = "archive"
    HDF5 = "HDF5"
    LINES = "lines of JSON"


class Access(StrEnum):
    """Who may read a file where it is made: all, for what is public or encrypted, or its owner alone."""

    PUBLIC = "all"
    PRIVATE = "its owner"


class Maker(StrEnum):
    """Who makes a file, and signs it where it is signed."""

    COORDINATOR = "coordinator"
    SITE = "site"
    ANYONE = "anyone"


class Format(Enum):
    """What a file holds. A row: id, form, maker, whether its maker signs it, in words, the commands that make it; then
    who may read it, and versions, where these are others than of most."""

    KEY = (
        "ucadi-key",
        Form.DOCUMENT,
        Maker.ANYONE,
        False,
        "a secret key",
        "keygen (NAME.key); it stays where it was made",
        Access.PRIVATE,
    )
    CARD = ("ucadi-card", Form.DOCUMENT, Maker.ANYONE, True, "a card", "keygen (NAME.card), with the key")
    ROSTER = ("ucadi-roster", Form.DOCUMENT, Maker.COORDINATOR, True, "a roster", "roster create")
    PLAN = ("ucadi-plan", Form.DOCUMENT, Maker.COORDINATOR, True, "a plan", "round open")
    RECEIPT = ("ucadi-receipt", Form.DOCUMENT, Maker.COORDINATOR, True, "a receipt", "round close")
    TAG = ("ucadi-tag", Form.DOCUMENT, Maker.SITE, True, "a tag", "tag")
    STATEMENT = ("ucadi-statement", Form.DOCUMENT, Maker.ANYONE, True, "a statement", "site run or coordinate")
    SPLIT = ("ucadi-split", Form.DOCUMENT, Maker.SITE, False, "a split", "split", Access.PRIVATE)
    CONSENT = ("ucadi-consent", Form.DOCUMENT, Maker.SITE, True, "a consent", "roster accept")
    LEDGER = (
        "ucadi-ledger",
        Form.LINES,
        Maker.ANYONE,
        False,
        "a ledger",
        "keygen (NAME.ledger), with the key",
        Access.PRIVATE,
    )
    WEIGHTS = ("ucadi-weights", Form.CONTAINER, Maker.ANYONE, False, "weights", "init, train or apply", Access.PRIVATE)
    UPDATE = ("ucadi-update", Form.CONTAINER, Maker.SITE, False, "an update", "train", Access.PRIVATE)
    AGGREGATE = (
        "ucadi-aggregate",
        Form.CONTAINER,
        Maker.ANYONE,
        False,
        "an opened sum (aggregate)",
        "decrypt, or by aggregate from plain updates",
        Access.PRIVATE,
    )
    HISTOGRAM = ("ucadi-histogram", Form.CONTAINER, Maker.SITE, False, "a histogram", "histogram", Access.PRIVATE)
    CIPHERTEXT = ("ucadi-ciphertext", Form.CONTAINER, Maker.SITE, True, "an encrypted update (upload)", "encrypt")
    SUM = (
        "ucadi-ciphertext-sum",
        Form.CONTAINER,
        Maker.COORDINATOR,
        True,
        "an encrypted sum",
        "aggregate or round close",
    )
    PARTIAL = ("ucadi-partial", Form.CONTAINER, Maker.SITE, True, "a partial decryption", "partial-decrypt")
    HANDOVER = ("ucadi-handover", Form.CONTAINER, Maker.SITE, True, "a sealed model (handover)", "site run")
    PREDICTIONS = ("ucadi-predictions", Form.CONTAINER, Maker.SITE, False, "predictions", "predict", Access.PRIVATE)
    CHECKPOINT = (
        "ucadi-checkpoint",
        Form.CONTAINER,
        Maker.SITE,
        False,
        "a checkpoint of a training",
        "train",
        Access.PRIVATE,
    )
    TRANSLATOR = (
        "ucadi-translator",
        Form.CONTAINER,
        Maker.SITE,
        False,
        "a translator",
        "translate train",
        Access.PRIVATE,
    )
    TRANSLATION_CHECKPOINT = (
        "ucadi-translation-checkpoint",
        Form.CONTAINER,
        Maker.SITE,
        False,
        "a checkpoint of a translator's training",
        "translate train",
        Access.PRIVATE,
    )
    DATASET = ("ucadi-dataset", Form.HDF5, Maker.SITE, False, "a dataset", "preprocess", Access.PRIVATE, (1, 2))
    COURIER = ("ucadi-courier", Form.ARCHIVE, Maker.ANYONE, False, "a courier's file", "courier pack")

    def __init__(
        self,
        id: str,
        form: Form,
        maker: Maker,
        signed: bool,
        words: str,
        made_by: str,
        access: Access = Access.PUBLIC,
        versions: tuple[int, ...] = (1,),
    ) -> None:
        self.id = id
        self.form = form
        self.maker = maker
        self.signed = signed
        self.words = words
        self.made_by = made_by
        self.access = access
        self.versions = versions

    @property
    def head(self) -> dict[str, Any]:
        """What a document or a container's metadata begin with."""
        return {"format": self.id, "version": self.versions[0]}

    @property
    def mode(self) -> int:
        """The permissions of such a file where it is made. What is put into an exchange directory all may read."""
        return PRIVATE_MODE if self.access is Access.PRIVATE else PUBLIC_MODE

    @classmethod
    def of(cls, id: str) -> Format | None:
        """The format of that id; None for one of another program, or of a later ucadi."""
        return next((one for one in cls if one.id == id), None)


class Readers(StrEnum):
    """Who gets a file from the relay."""

    ALL = "all"
    COORDINATOR = "coordinator, and the site itself"


class Carried(Enum):
    """When a courier brings a file to the sites that did not make it."""

    ALWAYS = "always"
    OPEN = "once the round is open"
    OVER = "once the round is over"
    NEVER = "never"


class Kind(Enum):
    """What travels. A row: name in the exchange directory, format, readers, when couriers carry it to sites, in words.

    Where the name has a site, each site makes its own; all others the coordinator makes. Rosters are numbered in their
    order, the first with 0, consents by their roster's sequence, which begins with 1; everything else by its round, a
    model by the round that begins with it.
    """

    ROSTER = (
        "federation-{number:04}.json",
        Format.ROSTER,
        Readers.ALL,
        Carried.ALWAYS,
        "a later roster, from `0002`; the newest has the highest number",
    )
    CONSENT = (
        "consents/{site}-{number:04}.json",
        Format.CONSENT,
        Readers.ALL,
        Carried.ALWAYS,
        "its consent to the roster of that sequence",
    )
    MODEL = (
        "models/{number:04}.weights",
        Format.WEIGHTS,
        Readers.ALL,
        Carried.OPEN,
        "the weights that round NNNN begins with, its plan's `base`, if the coordinator has them: it has the first",
    )
    PLAN = (
        "rounds/{number:04}/plan.json",
        Format.PLAN,
        Readers.ALL,
        Carried.ALWAYS,
        "the signed plan; with it the round is open",
    )
    UPLOAD = (
        "rounds/{number:04}/uploads/{site}.enc",
        Format.CIPHERTEXT,
        Readers.COORDINATOR,  # in members mode any member could open it
        Carried.NEVER,
        "its encrypted update, or counts",
    )
    SUM = (
        "rounds/{number:04}/sum.enc",
        Format.SUM,
        Readers.ALL,
        Carried.OVER,  # without a receipt it may not be for good yet
        "the sum of the uploads that were accepted",
    )
    RECEIPT = (
        "rounds/{number:04}/receipt.json",
        Format.RECEIPT,
        Readers.ALL,
        Carried.ALWAYS,
        "the receipt; with it the round is over",
    )
    TAG = (
        "rounds/{number:04}/tags/{site}.json",
        Format.TAG,
        Readers.ALL,
        Carried.OVER,  # it is of one receipt
        "its tag of its own upload, by which members check the sum",
    )
    PARTIAL = (
        "rounds/{number:04}/partials/{site}.partial",
        Format.PARTIAL,
        Readers.ALL,
        Carried.OVER,
        "its partial decryption of the sum, in threshold mode; the site is any member of the roster",
    )
    TIMES = (
        "rounds/{number:04}/times.json",
        Format.STATEMENT,
        Readers.ALL,
        Carried.NEVER,
        "its statement: how long adding took",
    )
    METRICS = (
        "rounds/{number:04}/metrics/{site}.json",
        Format.STATEMENT,
        Readers.ALL,
        Carried.OVER,  # whether the next round begins with another model follows from them
        "its statement: the model that the round leads to or why it is void, its vote, times, and what it publishes",
    )
    HANDOVER = (
        "rounds/{number:04}/handover/{site}.sealed",
        Format.HANDOVER,
        Readers.ALL,
        Carried.ALWAYS,
        "the model that round NNNN begins with, sealed to its roster, for who joins",
    )
    OPENED = (
        "rounds/{number:04}/opened/{site}.aggregate",
        Format.AGGREGATE,
        Readers.ALL,
        Carried.NEVER,
        "the opened sum, the same at every site; only where sites choose to publish it",
    )

    def __init__(self, pattern: str, format: Format, readers: Readers, carried: Carried, words: str) -> None:
        self.pattern = pattern
        self.format = format
        self.readers = readers
        self.carried = carried
        self.words = words

    @property
    def of_round(self) -> bool:
        """Whether it belongs to the round that its number is; rosters, consents and models do not."""
        return self.pattern.startswith("rounds/")

    @property
    def maker(self) -> Maker:
        """Who makes it: the site that its name holds, or the coordinator."""
        return Maker.SITE if "{site}" in self.pattern else Maker.COORDINATOR


FIRST_ROSTER = "federation.json"


def _matching(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\{number:04\}", "(?P<number>(?!0000)[0-9]{4})")
    return re.compile(text.replace(r"\{site\}", f"(?P<site>{SITE})"))


_NAMES = {kind: _matching(kind.pattern) for kind in Kind}

_FOLDERS = {
    _matching("/".join(steps[:depth]))
    for steps in (kind.pattern.split("/") for kind in Kind)
    for depth in range(len(steps))
}


DEPTH = max(kind.pattern.count("/") for kind in Kind)
"""Folders within one another in an exchange directory, at most."""


@dataclass(frozen=True)
class Place:
    """Where a file lies: its kind, its number, and its site if sites make it."""

    kind: Kind
    number: int
    site: str = ""

    @property
    def name(self) -> str:
        """The file's path within the exchange directory."""
        if self.kind is Kind.ROSTER and self.number == 0:
            return FIRST_ROSTER
        return self.kind.pattern.format(number=self.number, site=self.site)

    @classmethod
    def parse(cls, name: str) -> Place | None:
        """The place of that name; None if the exchange directory has no such file."""
        if name == FIRST_ROSTER:
            return cls(Kind.ROSTER, 0)
        for kind, pattern in _NAMES.items():
            if match := pattern.fullmatch(name):
                return cls(kind, int(match["number"]), match.groupdict().get("site", ""))
        return None

    @classmethod
    def named(cls, name: str) -> Place:
        """The place of a name that a user has typed; UsageError if there is none."""
        place = cls.parse(name)
        if place is None:
            raise UsageError(f"{name!r} is no name in an exchange directory", hint="for example rounds/0003/plan.json")
        return place


def is_folder(path: str) -> bool:
    """Whether files may lie at or below this path; the whole directory is the empty path."""
    return any(pattern.fullmatch(path) for pattern in _FOLDERS)
