"""The coordinator as a Flower ServerApp: it sends each site its parcel, takes what comes back, and leads the rounds.

The run's configuration names the coordinator's files: exchange, in which a first round is open, roster and key; and
rounds, 0 for as many as the schedule has.
"""

from __future__ import annotations

import time
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from ucadi.errors import UcadiError
from ucadi.federation.coordinator import coordinate
from ucadi.flower.parcels import held, packed, unpacked
from ucadi.formats import roster as roster_format

IDLE = 10
"""Turns in which nothing comes, after which the run ends rather than wait for ever."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Leads the federation's rounds; RuntimeError where nothing comes any more."""
    exchange, roster, key = (Path(str(context.run_config[name])) for name in ("exchange", "roster", "key"))
    rounds = int(str(context.run_config["rounds"])) or None
    federation = _Federation(grid, exchange, roster)
    idle = 0
    while idle < IDLE:
        led = coordinate(exchange, key=key, until_round=rounds, once=True)
        moved = federation.turn()
        if not moved and led.waiting_for is None:
            log(INFO, "all rounds are over; the model is sha256 %s", led.model)
            return
        idle = 0 if moved else idle + 1
    raise RuntimeError(f"nothing comes any more; awaited: {led.waiting_for}")


class _Federation:
    """The sites behind a grid's nodes, and what each is known to have."""

    def __init__(self, grid: Grid, exchange: Path, roster: Path) -> None:
        self._grid, self._exchange, self._roster = grid, exchange, roster
        self._known: dict[str, frozenset[str]] = {}

    def turn(self) -> bool:
        """Sends every site that is here its parcel and lets in what comes back; whether anything was new."""
        here = self._sites()
        if not here:
            time.sleep(1)
        parcels = [
            Message(packed(self._exchange, site, self._known.get(site, ())), node, "train")
            for node, site in here.items()
        ]
        moved = False
        for reply in self._grid.send_and_receive(parcels):
            site = here[reply.metadata.src_node_id]
            if reply.has_error():
                log(WARNING, "%s: %s", site, reply.error)
                continue
            try:
                moved |= bool(unpacked(reply.content, self._exchange, self._roster))
                self._known[site] = held(reply.content)
            except UcadiError as error:
                log(WARNING, "%s: %s", site, error.message)
        return moved

    def _sites(self) -> dict[int, str]:
        """The members that are here, by their node. Who claims another's name gets what is sealed to that one."""
        members = roster_format.read(self._roster).names
        questions = [Message(RecordDict(), node, "query") for node in self._grid.get_node_ids()]
        answers = [reply for reply in self._grid.send_and_receive(questions, timeout=60) if not reply.has_error()]
        named = {reply.metadata.src_node_id: str(reply.content["site"]["name"]) for reply in answers}
        return {node: name for node, name in named.items() if name in members}
