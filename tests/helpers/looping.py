"""A small federation whose sites and coordinator run their loops: real training on tiny data, in one folder or many."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from commandline import to_set
from federation import accept_all

from ucadi.commands.init import init
from ucadi.commands.keygen import keygen
from ucadi.commands.roster import roster_create
from ucadi.commands.round_open import round_open
from ucadi.ct.volume import Volume
from ucadi.federation.coordinator import CoordinateResult, coordinate
from ucadi.federation.site import SiteRunResult, site_run
from ucadi.formats import dataset
from ucadi.formats.dataset import Case
from ucadi.labels import Diagnosis

SIZE, SLICES = 16, 18

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "ucadi.learn.loop", "ucadi.federation.site", "ucadi.federation.coordinator"])


@dataclass(frozen=True)
class Hub:
    """A federation in `folder`: keys, datasets, and the coordinator's exchange directory with round 1 open."""

    folder: Path
    sites: tuple[str, ...]

    @property
    def exchange(self) -> Path:
        return self.folder / "exchange"

    @property
    def roster(self) -> Path:
        return self.folder / "federation.json"

    @property
    def roster_in_exchange(self) -> Path:
        return self.exchange / "federation.json"

    def key(self, name: str) -> Path:
        return self.folder / name / f"{name}.key"

    def work(self, site: str) -> Path:
        return self.key(site).with_suffix(".work")

    def own_exchange(self, site: str) -> Path:
        """A folder that a site has for itself, where it does not share the coordinator's."""
        return self.folder / site / "exchange"

    def copy(self, folder: Path) -> Hub:
        shutil.copytree(self.folder, folder)
        return Hub(folder, self.sites)

    def site_options(self, site: str, **options: Any) -> dict[str, Any]:
        data = self.folder / site / "data.h5"
        common = {"exchange": self.exchange, "dataset": data, "key": self.key(site)}
        return {**common, "once": True, "poll": 0.05, "as_json": True, **options}

    def coordinator_options(self, **options: Any) -> dict[str, Any]:
        common = {"exchange": self.exchange, "key": self.key("coordinator"), "once": True, "poll": 0.05}
        return {**common, "as_json": True, **options}

    def site(self, site: str, **options: Any) -> SiteRunResult:
        return site_run(**self.site_options(site, **options))

    def coordinate(self, **options: Any) -> CoordinateResult:
        return coordinate(**self.coordinator_options(**options))

    def follow(self, sites: Sequence[str] = ()) -> None:
        """Lets sites, or all, tag their uploads in a round that is over, and then open its sum."""
        for site in (*(sites or self.sites), *(sites or self.sites)):
            self.site(site)

    def play(self, turns: int = 12) -> str:
        """Lets all parties take turns until the coordinator has nothing left to do; the last model's digest."""
        for _ in range(turns):
            for site in self.sites:
                self.site(site)
            result = self.coordinate()
            if result.waiting_for is None:
                assert result.model is not None
                for site in self.sites:  # those who were not needed for the majority
                    self.site(site)
                return result.model
        raise AssertionError(f"not over after {turns} turns: waiting for {result.waiting_for}")


def write_dataset(path: Path, seed: int, cases: int = 4) -> None:
    """Noise, a little brighter for some diagnoses: enough to train on, nothing to learn."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(cases):
        hu = rng.integers(-1000, 300, (SLICES, SIZE, SIZE)).astype(np.int16)
        volume = Volume(hu + np.int16(50 * (number % 4)), np.diag([1.0, 1.0, 1.0, 1.0]))
        identity = f"{seed:08x}{number:08x}"
        label = Diagnosis(number % 4)
        made.append(Case(identity, identity, label, volume, volume.positions_mm, {}, "ab" * 32, ()))
    dataset.write(path, made, [], size=SIZE, attributes={}, force=True)


def make_party(folder: Path, name: str, seed: int) -> None:
    (folder / name).mkdir()
    keygen(name, output=folder / name)
    write_dataset(folder / name / "data.h5", seed)


def make_hub(
    folder: Path,
    sites: Sequence[str] = ("site-a", "site-b", "site-c"),
    *,
    rounds: int = 2,
    threshold: int | None = None,
    minimum_sites: int = 2,
    quorum: int | None = None,
) -> Hub:
    """A federation whose rounds are of one local epoch."""
    hub = Hub(folder, tuple(sites))
    hub.exchange.mkdir(parents=True)
    for number, name in enumerate(("coordinator", *sites)):
        make_party(folder, name, number)
    roster_create(
        [folder / site / f"{site}.card" for site in sites],
        federation="test",
        key=hub.key("coordinator"),
        output=hub.exchange / "federation.json",
        minimum_sites=minimum_sites,
        threshold=threshold,
        mode="members" if threshold is None else "threshold",
    )
    accept_all(hub.exchange / "federation.json", [hub.key(site) for site in sites])
    shutil.copy(hub.exchange / "federation.json", hub.roster)
    init(seed=1, width=2, size=SIZE, output=folder / "base.weights")
    round_open(
        number=1,
        base=folder / "base.weights",
        exchange=hub.exchange,
        key=hub.key("coordinator"),
        quorum=quorum,
        settings=to_set(total_epochs=rounds, warmup_epochs=0, batch_size=2),
    )
    return hub


def run_until_killed(function: Callable[..., object], options: dict[str, Any], count: Path, at: int) -> bool:
    """Runs a loop in a process that kills itself (-9) before the file number `at` of all its runs appears.

    `count` keeps how many have appeared so far. Whether it was killed.
    """
    process = PROCESSES.Process(target=_until_killed, args=(function, options, count, at))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _until_killed(function: Callable[..., object], options: dict[str, Any], count: Path, at: int) -> None:
    def deadly(name_it: Callable[..., None]) -> Callable[..., None]:
        def named(*arguments: Any, **options: Any) -> None:
            before = int(count.read_text()) if count.exists() else 0
            if before == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count.write_text(str(before + 1))
            name_it(*arguments, **options)

        return named

    os.replace, os.link = deadly(os.replace), deadly(os.link)
    run_quietly(function, options)


def run_quietly(function: Callable[..., object], options: dict[str, Any]) -> None:
    """Runs a loop, for a process of its own, without its events."""
    with Path(os.devnull).open("w") as nothing:
        sys.stdout = nothing
        function(**options)
