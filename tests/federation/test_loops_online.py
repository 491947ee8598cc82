"""Loops over a relay, each party a process of its own, killed (-9) again and again until the rounds are over."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from looping import PROCESSES, Hub, make_hub, run_quietly
from relays import Proxy, RelayProcess

from ucadi.commands.keygen import keygen
from ucadi.federation.coordinator import coordinate
from ucadi.federation.site import site_run

SECONDS = 100
"""Longest that a federation of two rounds may take, killed as it is."""


class Party:
    """A loop in a process of its own; `start` it again after it was killed."""

    def __init__(self, function: Callable[..., object], options: dict[str, Any]) -> None:
        self._work = (function, options)
        self._process: BaseProcess
        self.start()

    def start(self) -> None:
        self._process = PROCESSES.Process(target=run_quietly, args=self._work)
        self._process.start()

    @property
    def is_done(self) -> bool:
        assert self._process.exitcode in (None, 0, -signal.SIGKILL), self._process.exitcode
        return self._process.exitcode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


class Online:
    """A hub whose sites have folders of their own, a relay that keeps the coordinator's, and all of them running."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        (hub.folder / "relay").mkdir()
        keygen("relay", output=hub.folder / "relay")
        self.relay = self._relay()

    def _relay(self, port: int = 0) -> RelayProcess:
        return RelayProcess(self.hub.exchange, self.hub.key("relay"), port)

    def restart_relay(self) -> None:
        self.relay.kill()
        self.relay = self._relay(self.relay.port)

    def site(self, site: str, address: str | None = None) -> Party:
        line = {"relay": address or self.relay.address, "relay_card": self.hub.folder / "relay" / "relay.card"}
        own = self.hub.own_exchange(site)
        return Party(site_run, self.hub.site_options(site, exchange=own, once=False, **line))

    def coordinator(self, **options: Any) -> Party:
        return Party(coordinate, self.hub.coordinator_options(once=False, **options))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return make_hub(tmp_path_factory.mktemp("fresh") / "hub")


@pytest.fixture(scope="module")
def model(fresh: Hub, tmp_path_factory: pytest.TempPathFactory) -> str:
    return fresh.copy(tmp_path_factory.mktemp("undisturbed") / "hub").play()


def wait_for_all(parties: list[Party], meanwhile: Callable[[], object] = lambda: time.sleep(0.05)) -> None:
    end = time.monotonic() + SECONDS
    try:
        while not all(party.is_done for party in parties):
            assert time.monotonic() < end, "the rounds do not end"
            meanwhile()
    finally:
        for party in parties:
            party.kill()


def check(hub: Hub, model: str) -> None:
    for site in hub.sites:
        assert (hub.work(site) / f"{model}.weights").exists()
        uploads = {path.name for path in hub.own_exchange(site).rglob("uploads/*")}
        assert uploads == {f"{site}.enc"}  # nobody else's has come here
    for number in ("0001", "0002"):
        assert len(list((hub.exchange / "rounds" / number / "uploads").glob("*.enc"))) == len(hub.sites)


@pytest.mark.slow
def test_every_party_killed_again_and_again_ends_with_the_same_model(fresh: Hub, model: str, tmp_path: Path) -> None:
    online = Online(fresh.copy(tmp_path / "hub"))
    parties = [online.coordinator(), *map(online.site, online.hub.sites)]
    chance, kills = random.Random(4), 0

    def disturb() -> None:
        nonlocal kills
        time.sleep(chance.uniform(0, 0.6))
        if kills < 40:
            kills += 1
            victim = chance.choice([*parties, None])
            if victim is None:
                online.restart_relay()
            elif not victim.is_done:
                victim.kill()
                victim.start()

    try:
        wait_for_all(parties, disturb)
    finally:
        online.relay.kill()
    assert kills > 5
    check(online.hub, model)


def test_over_lines_that_break_every_so_often_the_rounds_end(fresh: Hub, model: str, tmp_path: Path) -> None:
    online = Online(fresh.copy(tmp_path / "hub"))
    passed = 0

    def cut(size: int) -> bool:
        nonlocal passed
        passed += size
        if passed > 60_000:  # every so many bytes of all lines together, somebody's breaks
            passed = 0
            return False
        return True

    try:
        with Proxy(online.relay.port, cut) as proxy:
            parties = [online.coordinator(), *(online.site(site, proxy.address) for site in online.hub.sites)]
            wait_for_all(parties)
            assert proxy.connections > 2 * len(online.hub.sites)
    finally:
        online.relay.kill()
    check(online.hub, model)


def test_some_sites_online_and_one_by_courier_are_in_the_same_round(fresh: Hub, model: str, tmp_path: Path) -> None:
    from ucadi.commands.courier import courier_pack, courier_unpack

    online = Online(fresh.copy(tmp_path / "hub"))
    hub, stick = online.hub, tmp_path / "stick"
    apart, own = hub.sites[-1], hub.own_exchange(hub.sites[-1])
    own.mkdir()

    def travel() -> None:
        courier_pack(hub.exchange, receiver=apart, output=stick, force=True)
        courier_unpack(stick, own, roster=hub.roster)
        hub.site(apart, exchange=own)
        courier_pack(own, receiver="coordinator", output=stick, force=True)
        courier_unpack(stick, hub.exchange, roster=hub.roster)

    try:
        wait_for_all([online.coordinator(), *map(online.site, hub.sites[:-1])], travel)
        travel()
    finally:
        online.relay.kill()
    check(hub, model)


def test_a_site_waits_while_the_relay_is_away_and_says_so(fresh: Hub, tmp_path: Path) -> None:
    online = Online(fresh.copy(tmp_path / "hub"))
    port = online.relay.port
    site = online.site("site-a")
    upload = online.hub.exchange / "rounds" / "0001" / "uploads" / "site-a.enc"
    try:
        end = time.monotonic() + 90
        while not upload.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        online.relay.kill()
        time.sleep(1)
        assert not site.is_done
        online.relay = RelayProcess(online.hub.exchange, online.hub.key("relay"), port)
        for _ in range(2):  # once for uploads, once for tags
            for other in online.hub.sites[1:]:
                online.hub.site(other)
            online.hub.coordinate()
        said = online.hub.exchange / "rounds" / "0001" / "metrics" / "site-a.json"
        while not said.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        site.kill()
        online.relay.kill()
    shutil.rmtree(online.hub.folder)
