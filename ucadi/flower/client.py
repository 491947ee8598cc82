"""A site as a Flower ClientApp: it takes a parcel in, does what can be done, and answers with what it made.

Its node's configuration names the site's own files: exchange, dataset, roster and key, and as options test, split, part
and work, as `ucadi site run` takes them. What is said there of what may leave, holds.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ucadi.federation.site import site_run
from ucadi.files import make_folder
from ucadi.flower.parcels import held, packed, unpacked
from ucadi.formats import keys as key_format
from ucadi.formats import roster as roster_format

app = ClientApp()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Says which site this node is. Nothing is believed for it: what it makes is signed."""
    name = key_format.read_key(Path(str(context.node_config["key"]))).name
    return Message(RecordDict({"site": ConfigRecord({"name": name})}), reply_to=message)


@app.train()
def take_part(message: Message, context: Context) -> Message:
    """Does what the parcel makes possible: trains, encrypts, makes its partial decryption, opens the sum."""
    given = {name: str(value) for name, value in context.node_config.items()}
    exchange, roster = Path(given["exchange"]), Path(given["roster"])
    make_folder(exchange)
    unpacked(message.content, exchange, roster)
    site_run(
        exchange,
        dataset=Path(given["dataset"]),
        roster=roster,
        key=Path(given["key"]),
        split=_path(given.get("split")),
        part=given.get("part"),
        test=_path(given.get("test")),
        work=_path(given.get("work")),
        once=True,
    )
    coordinator = roster_format.read(roster).coordinator.name
    return Message(packed(exchange, coordinator, held(message.content)), reply_to=message)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
