"""What a loop waits for: a word for programs, the round, and who is to do it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ucadi.events import Events


class Awaits(StrEnum):
    """What has to come before a loop can go on."""

    FIRST_ROUND = "first round"
    ROSTER = "roster"
    ACCEPTANCE = "acceptance"
    CONSENTS = "consents"
    POLICY = "policy"
    OTHER_KEYS = "other keys"
    CHOICE = "choice"
    NEXT_ROUND = "next round"
    AFTER_VOID = "next round after a void one"
    END = "end"
    MODEL = "model"
    EARLIER_MODEL = "earlier model"
    NEXT_MODEL = "next model"
    SUM = "sum"
    OWN_UPLOAD = "own upload"
    TAGS = "tags"
    TRUE_TAGS = "true tags"
    PARTIALS = "partial decryptions"
    RIGHT_PARTIALS = "right partial decryptions"
    UPLOADS = "uploads"
    STATEMENTS = "statements"


_IN_WORDS = {
    Awaits.FIRST_ROUND: "a first round",
    Awaits.ROSTER: "a round whose roster lists this site",
    Awaits.ACCEPTANCE: "people here to accept the roster of round {round}: {who}",
    Awaits.CONSENTS: "the consents to the roster of round {round}, of {who}",
    Awaits.POLICY: "a round that this site's policy admits: {who}",
    Awaits.OTHER_KEYS: "a run with the key that the roster of round {round} lists for this site: {who}",
    Awaits.CHOICE: "a round that this site is chosen for; round {round} is without it",
    Awaits.NEXT_ROUND: "a round after round {round}",
    Awaits.AFTER_VOID: "a round after round {round}, which is void",
    Awaits.END: "the end of round {round}",
    Awaits.MODEL: "the model that round {round} begins with",
    Awaits.EARLIER_MODEL: "the model that round {round} began with",
    Awaits.NEXT_MODEL: "the model that round {round} led to, from another member, once the next round is open",
    Awaits.SUM: "the sum of round {round}",
    Awaits.OWN_UPLOAD: "this site's own upload of round {round}, of which its tag is made; put it back into its place",
    Awaits.TAGS: "tags, by which the sum of round {round} is checked, of {who}",
    Awaits.TRUE_TAGS: "an end of round {round}, which nobody opens: the tag of {who} is not that of its upload",
    Awaits.PARTIALS: "more partial decryptions for round {round}, of {who}",
    Awaits.RIGHT_PARTIALS: "more partial decryptions for round {round}, since those here disagree, of {who}",
    Awaits.UPLOADS: "uploads of round {round}: {who}",
    Awaits.STATEMENTS: "the sites' statements on the model that round {round} leads to: {who}",
}


@dataclass(frozen=True)
class Awaited:
    """What is awaited, in which round, and of whom where that is known."""

    what: Awaits
    round: int = 0
    who: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _IN_WORDS[self.what].format(round=self.round, who=", ".join(self.who))

    @property
    def fields(self) -> dict[str, Any]:
        """The same as the fields of an event."""
        return {"for": self.what.value, "round": self.round, "of": self.who}


class Teller:
    """Tells what is awaited whenever that has changed."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._told: Awaited | None = None

    def __call__(self, awaited: Awaited | None) -> None:
        if awaited is not None and awaited != self._told:
            self._events("waiting", awaited.fields)
        self._told = awaited
