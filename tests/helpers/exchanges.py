"""Exchange directories for tests: a federation's files laid out as the coordinator has them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from federation import SHAPES, Federation, forget

from ucadi.commands.apply import apply
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.round_close import RoundCloseResult, round_close
from ucadi.commands.round_open import round_open
from ucadi.commands.tag import tag
from ucadi.fed.update import Update
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind


@dataclass(frozen=True)
class Rounds:
    """A federation that works in an exchange directory; keys and updates stay outside, in the federation's folder."""

    federation: Federation
    exchange: Exchange

    @classmethod
    def begin(cls, federation: Federation, root: Path) -> Rounds:
        (root / "models").mkdir(parents=True)
        shutil.copy(federation.roster, root / "federation.json")
        shutil.copytree(federation.folder / "consents", root / "consents")
        rounds = cls(federation, Exchange(root))
        shutil.copy(federation.base, rounds.exchange.model(1))
        return rounds

    def copy(self, root: Path) -> Rounds:
        """Another history of the same federation, whose parties have forgotten this one."""
        shutil.copytree(self.exchange.root, root)
        for key in self.federation.folder.glob("*.key"):
            forget(key)
        return Rounds(self.federation, Exchange(root))

    def file(self, kind: Kind, number: int, site: str = "") -> Path:
        path = self.exchange.path(kind, number, site)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def open(self, number: int, quorum: int | None = None, recipe: Path | None = None) -> None:
        round_open(
            number=number,
            base=self.exchange.model(number),
            roster=self.exchange.rosters()[-1],
            key=self.federation.key("coordinator"),
            output=self.file(Kind.PLAN, number),
            quorum=quorum,
            recipe=recipe,
        )

    def upload(self, number: int, site: str) -> Path:
        rng = np.random.default_rng([number, *site.encode()])
        deltas = {name: np.asarray(rng.normal(0, 0.01, shape), np.float32) for name, shape in SHAPES.items()}
        base = weights_format.read(self.exchange.model(number)).digest
        update = self.federation.folder / f"{site}-{number}.update"
        update_format.write_update(update, Update(site, base, int(rng.integers(1, 500)), 1, deltas), force=True)
        output = self.file(Kind.UPLOAD, number, site)
        encrypt(
            update,
            plan=self.exchange.plan(number),
            roster=self.exchange.roster(number),
            key=self.federation.key(site),
            output=output,
        )
        return output

    def close(self, number: int) -> RoundCloseResult:
        return round_close(self.exchange.root, number=number, key=self.federation.key("coordinator"))

    def tag(self, number: int, site: str) -> Path:
        output = self.file(Kind.TAG, number, site)
        tag(
            self.exchange.path(Kind.UPLOAD, number, site),
            receipt=self.exchange.receipt(number),
            key=self.federation.key(site),
            output=output,
            force=True,
            **self.signed(number),
        )
        return output

    def signed(self, number: int) -> dict[str, Path]:
        return {"plan": self.exchange.plan(number), "roster": self.exchange.roster(number)}

    def answer(self, number: int, site: str) -> Path:
        output = self.file(Kind.PARTIAL, number, site)
        partial_decrypt(
            self.exchange.sum(number),
            plan=self.exchange.plan(number),
            roster=self.exchange.roster(number),
            key=self.federation.key(site),
            output=output,
        )
        return output

    def lead_on(self, number: int, site: str) -> Path:
        """A member opens the round's sum; the model that the next round begins with."""
        opened = self.file(Kind.OPENED, number, site)
        signed = self.signed(number)
        answers = [self.exchange.root / place.name for place in self.exchange.places(Kind.PARTIAL, number)]
        key = self.federation.key(site)
        decrypt(self.exchange.sum(number), key=key, output=opened, partial=answers, **signed)
        following = self.exchange.model(number + 1)
        apply(self.exchange.model(number), opened, output=following, **signed)
        return following

    def play(self, number: int, sites: tuple[str, ...] | None = None, recipe: Path | None = None) -> None:
        """A whole round, from plan to next model."""
        self.open(number, quorum=2, recipe=recipe)
        for site in sites or self.federation.sites:
            self.upload(number, site)
        self.close(number)
        self.lead_on(number, self.federation.sites[0])
