"""A federation on disk for tests: keys, roster, a base model and updates, made by the library's own commands."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucadi.commands.encrypt import encrypt
from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_create
from ucadi.commands.roster_accept import roster_accept
from ucadi.commands.round_open import round_open
from ucadi.fed.update import Update
from ucadi.files import file_digest
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.weights import Weights

SHAPES = {"conv.weight": (8, 1, 3, 3, 3), "norm.running_var": (8,), "norm.weight": (8,), "scale": ()}


def random_arrays(rng: np.random.Generator, shapes: dict[str, tuple[int, ...]], scale: float) -> dict[str, np.ndarray]:
    return {name: np.asarray(rng.normal(0, scale, shape), dtype=np.float32) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Federation:
    """Paths of a small federation; `sites` in roster order."""

    folder: Path
    sites: tuple[str, ...]

    @property
    def roster(self) -> Path:
        return self.folder / "federation.json"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def base(self) -> Path:
        return self.folder / "base.weights"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def update(self, site: str) -> Path:
        return self.folder / f"{site}.update"

    def ciphertext(self, site: str) -> Path:
        return self.folder / f"{site}.enc"

    @property
    def updates(self) -> list[Path]:
        return [self.update(site) for site in self.sites]

    @property
    def ciphertexts(self) -> list[Path]:
        return [self.ciphertext(site) for site in self.sites]

    def encrypt_all(self) -> None:
        for site in self.sites:
            encrypt(
                self.update(site), plan=self.plan, roster=self.roster, key=self.key(site), output=self.ciphertext(site)
            )

    def open_round(self, number: int, output: Path, **options: object) -> None:
        round_open(
            number=number,
            base=self.base,
            roster=self.roster,
            key=self.key("coordinator"),
            output=output,
            **options,  # type: ignore[arg-type]
        )

    def write_updates(self, rng: np.random.Generator, shapes: dict[str, tuple[int, ...]], scale: float) -> None:
        base = weights_format.read(self.base).digest
        for site in self.sites:
            deltas = random_arrays(rng, shapes, scale)
            examples, epochs = int(rng.integers(1, 500)), int(rng.integers(1, 5))
            update_format.write_update(self.update(site), Update(site, base, examples, epochs, deltas), force=True)


def accept_all(roster: Path, keys: Sequence[Path], *settings: str) -> None:
    """People at each site accept the roster, and admit sums of two; `settings` of their policies besides."""
    for key in keys:
        roster_accept(roster, key=key, yes=file_digest(roster), settings=["minimum_sites=2", *settings])


def copy_key(key: Path, folder: Path) -> Path:
    """A key with what lies beside it: its ledger, its policy and the rosters accepted with it."""
    shutil.copy(key, folder)
    for suffix in (".ledger", ".policy.toml"):
        if (beside := key.with_suffix(suffix)).exists():
            shutil.copy(beside, folder)
    if (accepted := key.with_suffix(".accepted")).exists():
        shutil.copytree(accepted, folder / accepted.name, dirs_exist_ok=True)
    return folder / key.name


def forget(key: Path) -> None:
    """Whoever holds the key throws away what it has done with it, but not the rosters that it accepted."""
    ledger = key.with_suffix(".ledger")
    lines = ledger.read_bytes().splitlines(keepends=True)
    kept = itertools.takewhile(lambda line: b'"accepted"' in line or b'"format"' in line, lines)
    ledger.write_bytes(b"".join(kept))


def make_federation(
    folder: Path,
    sites: Sequence[str] = ("site-a", "site-b", "site-c"),
    *,
    shapes: dict[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    minimum_sites: int = 2,
    threshold: int | None = None,
    scale: float = 0.01,
) -> Federation:
    """Keys, roster, base, plan of round 1 and a random update per site in `folder`."""
    shapes = SHAPES if shapes is None else shapes
    rng = np.random.default_rng(seed)
    for name in ("coordinator", *sites):
        keygen(name, output=folder)
    federation = Federation(folder, tuple(sorted(sites)))
    roster_create(
        [folder / f"{site}.card" for site in sites],
        federation="test",
        key=federation.key("coordinator"),
        output=federation.roster,
        minimum_sites=minimum_sites,
        threshold=threshold,
        mode="members" if threshold is None else "threshold",
    )
    accept_all(federation.roster, [federation.key(site) for site in federation.sites])
    base = Weights(random_arrays(rng, shapes, 1.0), {"name": "test"}, {"seed": seed})
    weights_format.write(federation.base, base)
    federation.open_round(1, federation.plan)
    federation.write_updates(rng, shapes, scale)
    return federation
