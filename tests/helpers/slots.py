"""All commands with all their parameters, from the command line's own tree, and right values for each: for tests that
put something wrong into one of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from commandline import Result, invoke, to_set
from federation import copy_key
from looping import Hub, make_hub, write_dataset
from typer.models import TyperPath

from ucadi.cli import command_line
from ucadi.commands.courier import courier_pack
from ucadi.commands.decrypt import decrypt
from ucadi.commands.encrypt import encrypt
from ucadi.commands.histogram import histogram
from ucadi.commands.keygen import keygen
from ucadi.commands.partial_decrypt import partial_decrypt
from ucadi.commands.predict import predict
from ucadi.commands.roster import roster_create
from ucadi.commands.round_close import round_close
from ucadi.commands.split import split
from ucadi.commands.tag import tag
from ucadi.commands.train import train
from ucadi.commands.translate_apply import translate_apply
from ucadi.commands.translate_train import translate_train
from ucadi.files import file_digest, write_file
from ucadi.formats import dataset as dataset_format
from ucadi.formats.exchange import Exchange
from ucadi.kinds import Kind

NOWHERE = "tcp://127.0.0.1:9"
NO_ARCHIVE = "http://127.0.0.1:9/dicom-web"


@dataclass(frozen=True)
class Slot:
    """One parameter of one command."""

    command: str
    parameter: str
    option: str | None
    """How it is written; None for an argument, which has only a place."""
    required: bool
    is_path: bool
    type: Any

    def __str__(self) -> str:
        return f"{self.command} {self.option or self.parameter}".replace(" ", "_")


@cache
def slots() -> tuple[Slot, ...]:
    """Every parameter of every command, in the order of the command line."""

    def walk(command: Any, name: str) -> Iterator[Slot]:
        for word, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {word}".strip())
        if not hasattr(command, "commands"):
            for one in command.params:
                option = max(one.opts, key=len) if one.param_type_name == "option" else None
                yield Slot(name, one.name, option, one.required, isinstance(one.type, TyperPath), one.type)

    return tuple(walk(command_line(whole=True), ""))


OUTPUTS = {
    "output", "lesion_masks", "report", "linkage", "log", "tensorboard", "checkpoint", "samples", "sheet", "quarantine",
    "work", "contrast", "noncontrast",
}  # fmt: skip
"""Names of parameters whose path is written to."""


def is_output(slot: Slot) -> bool:
    """Whether the command writes to what the slot names."""
    if slot.command == "translate train" and slot.parameter in ("contrast", "noncontrast"):
        return False
    return slot.is_path and (slot.parameter in OUTPUTS or (slot.command, slot.parameter) in ALSO_MADE)


ALSO_MADE = {("site run", "exchange"), ("courier unpack", "exchange")}
"""Folders that are made where they are not."""


@dataclass(frozen=True)
class World:
    """A federation of three sites with a file of every kind, in one folder."""

    hub: Hub
    files: Path
    case: str

    def run(self, slot: Slot, value: str | Path, out: Path, *more: str | Path) -> Result:
        """Runs the slot's command with this value in it, everything else right, and outputs in the folder `out`."""
        return invoke(*self.arguments(slot, value, out), *more)

    def arguments(self, slot: Slot, value: str | Path, out: Path) -> list[str | Path]:
        """The command line of a slot with this value in it."""
        given = self.right(slot.command, out) | {slot.parameter: value}
        given |= {k: v for k, v in self._beside(slot).items() if k != slot.parameter}
        line: list[str | Path] = list(slot.command.split())
        for one in slots():
            if one.command != slot.command or one.parameter not in given:
                continue
            right = given[one.parameter]
            if right is None:
                continue
            line += [one.option] if one.option else []
            line += [right] if not isinstance(right, list) else right
        return line

    def right(self, command: str, out: Path) -> dict[str, Any]:
        """Right values of all that a command must have."""
        f, hub = self.files, self.hub
        signed = {"plan": f / "plan.json", "roster": f / "federation.json"}
        own = {"key": hub.key("site-a"), "output": out / "made"}
        chief = {"key": hub.key("coordinator"), "output": out / "made"}
        relay = {"relay": NOWHERE, "relay_card": f / "site-b.card", "key": hub.key("site-a")}
        made = {"output": out / "made"}
        cards = [f / f"{site}.card" for site in hub.sites]
        uploads = [f / f"{site}.enc" for site in hub.sites]
        return {
            "demo": {**made, "patients": "8"},
            "phantom": {**made, "patients": "1", "matrix": "64", "slices": "8", "workers": "1"},
            "preprocess": {"source": f / "cases", "labels": f / "labels.csv", "salt": f / "salt", **made},
            "merge": {"datasets": f / "test.h5", **made},
            "split": {"dataset": f / "test.h5", **made},
            "init": {**made, "width": "2", "size": "16"},
            "train": {"dataset": f / "test.h5", "base": f / "base.weights", "site": "site-a", "recipe": f / "one.toml",
                      **made},
            "predict": {"dataset": f / "test.h5", "model": f / "base.weights", **made},
            "evaluate": {"predictions": f / "test.predictions"},
            "histogram": {"inputs": f / "test.predictions", **made},
            "gradcam": {"dataset": f / "test.h5", "model": f / "base.weights", "case": self.case, **made},
            "export": {"model": f / "base.weights", "format": "torchscript", **made},
            "keygen": {"name": "site-x", "output": out},
            "passphrase": {"key": f / "locked/site-x.key", "passphrase_file": f / "passphrase",
                           "new_passphrase_file": f / "passphrase"},
            "encrypt": {"update": f / "site-a.update", **signed, **own},
            "aggregate": {"updates": uploads, **signed, **chief},
            "tag": {"upload": f / "site-a.enc", **signed, "receipt": f / "receipt.json", **own},
            "partial-decrypt": {"ciphertext": f / "sum.enc", **signed, **own},
            "decrypt": {"ciphertext": f / "sum.enc", "partials": [f / "site-a.partial", f / "site-b.partial"], **signed,
                        **own},
            "apply": {"base": f / "base.weights", "change": f / "opened.aggregate", **signed, **made},
            "verify": {"files": [f / "sum.enc", *uploads], **signed},
            "audit": {"exchange": hub.exchange},
            "inspect": {"path": f / "base.weights"},
            "coordinate": {"exchange": hub.exchange, "key": hub.key("coordinator"), "once": []},
            "push": {**relay, "files": f / "site-a.enc", "names": "rounds/0001/uploads/site-a.enc"},
            "pull": {**relay, "exchange": hub.exchange},
            "wait": {**relay, "names": "federation.json", "timeout": "1s"},
            "serve": {"model": f / "base.weights", "bind": "127.0.0.1:0", "work": out / "serve"},
            "roster create": {"cards": cards, "federation": "lungs", **chief},
            "roster accept": {"roster": f / "federation.json", "key": hub.key("site-a"),
                              "yes": file_digest(hub.roster)},
            "ledger show": {"key": hub.key("site-a")},
            "ledger accept-loss": {"key": hub.key("site-a"), "yes": []},
            "roster add": {"cards": f / "site-d.card", "roster": f / "wide.json", **chief},
            "roster remove": {"names": "site-c", "roster": f / "wide.json", **chief},
            "roster rotate": {"cards": f / "new/site-a.card", "roster": f / "wide.json", **chief},
            "roster show": {"roster": f / "federation.json"},
            "translate divide": {"dataset": f / "test.h5", "contrast": out / "c", "noncontrast": out / "n",
                                 "known": f / "known.csv"},
            "translate train": {"contrast": f / "test.h5", "noncontrast": f / "other.h5", "size": "32", "width": "4",
                                "blocks": "1", "recipe": f / "one.toml", **made},
            "translate apply": {"dataset": f / "test.h5", "model": f / "site-a.translator", **made},
            "translate evaluate": {"translated": f / "made.h5", "source": f / "test.h5", "real": f / "other.h5"},
            "site run": {"exchange": hub.exchange, "dataset": f / "test.h5", "roster": f / "federation.json",
                         "key": hub.key("site-a"), "work": out / "work", "once": []},
            "round open": {"number": "2", "key": hub.key("coordinator"), "base": f / "base.weights",
                           "roster": f / "federation.json", **made},
            "round status": {"exchange": hub.exchange},
            "round close": {"exchange": hub.exchange, "number": "1", "key": hub.key("coordinator")},
            "round times": {"exchange": hub.exchange},
            "courier pack": {"exchange": hub.exchange, "receiver": "site-a", **made},
            "courier unpack": {"file": f / "site-a.courier", "exchange": out / "own", "roster": f / "federation.json"},
            "pacs pull": {"url": NO_ARCHIVE, "study": "1.2.3", **made},
            "pacs push": {"url": NO_ARCHIVE, "files": f / "cases"},
            "relay serve": {"exchange": hub.exchange, "key": hub.key("site-b"), "bind": "tcp://127.0.0.1:0"},
        }[command]  # fmt: skip

    def _beside(self, slot: Slot) -> dict[str, Any]:
        """What else a parameter needs to be looked at."""
        f = self.files
        signed = {"plan": f / "plan.json", "roster": f / "federation.json"}
        name = (slot.command, slot.parameter)
        if slot.command != "tag" and slot.parameter == "receipt":
            return {"tag": f / "tags"}
        if slot.parameter == "tag":
            return {"receipt": f / "receipt.json"}
        if slot.parameter == "split":
            return {"part": "trainval"}
        if name in (("train", "plan"), ("train", "roster"), ("train", "local_norms")):
            return {**signed, "recipe": None}
        if name in (("histogram", "plan"), ("histogram", "roster")):
            return {**signed, "inputs": f / "opened.aggregate"}
        if name == ("evaluate", "validation"):
            return {"operating_point": "youden"}
        if name == ("serve", "tls_certificate"):
            return {"tls_key": f / "page.pem"}
        if name == ("serve", "tls_key"):
            return {"tls_certificate": f / "page.pem"}
        if name == ("pacs push", "credentials"):
            return {}
        if name in (("coordinate", "relay_card"), ("site run", "relay_card")):
            return {"relay": NOWHERE}
        if name == ("round open", "exchange"):
            return {"roster": None, "output": None}
        if name == ("push", "exchange"):
            return {"names": None}
        if name == ("aggregate", "quarantine"):
            return {"key": None, "updates": [f / "base.weights", *(f / f"{site}.update" for site in self.hub.sites)]}
        return {}


def make_world(folder: Path) -> World:
    """The federation and its files; one round of it is over."""
    hub = make_hub(folder / "hub", rounds=2, threshold=2, minimum_sites=3)
    f = folder / "files"
    f.mkdir()
    exchange = Exchange(hub.exchange)
    plan, roster = exchange.plan(1), hub.roster_in_exchange
    shutil.copytree(hub.exchange / "consents", f / "consents")
    for path in (plan, roster, hub.folder / "base.weights", *hub.folder.glob("*/*.card")):
        shutil.copy(path, f)
    write_dataset(hub.folder / "site-a/data.h5", 0, cases=12)
    shutil.copy(hub.folder / "site-a/data.h5", f / "test.h5")
    shutil.copy(hub.folder / "site-b/data.h5", f / "other.h5")
    signed = {"plan": plan, "roster": roster}
    for site in hub.sites:
        data, update = hub.folder / site / "data.h5", f / f"{site}.update"
        train(data, base=f / "base.weights", site=site, output=update, **signed)
        upload = exchange.path(Kind.UPLOAD, 1, site)
        upload.parent.mkdir(parents=True, exist_ok=True)
        encrypt(update, key=hub.key(site), output=upload, **signed)
        shutil.copy(upload, f / f"{site}.enc")
    round_close(hub.exchange, number=1, key=hub.key("coordinator"))
    shutil.copy(exchange.sum(1), f / "sum.enc")
    shutil.copy(exchange.receipt(1), f / "receipt.json")
    (f / "tags").mkdir()
    for site in hub.sites:
        made = f / "tags" / f"{site}.json"
        tag(f / f"{site}.enc", receipt=f / "receipt.json", key=hub.key(site), output=made, **signed)
    answers = []
    for site in hub.sites[:2]:
        answers.append(f / f"{site}.partial")
        partial_decrypt(f / "sum.enc", key=hub.key(site), output=answers[-1], **signed)
    decrypt(f / "sum.enc", key=hub.key("site-a"), output=f / "opened.aggregate", partial=answers, **signed)
    predict(f / "test.h5", model=[f / "base.weights"], output=f / "test.predictions")
    histogram([f / "test.predictions"], output=f / "test.histogram")
    split(f / "test.h5", output=f / "test.split", folds=2)
    courier_pack(hub.exchange, receiver="site-a", output=f / "site-a.courier")
    (f / "one.toml").write_text("total_epochs = 1\n")
    translate_train(
        f / "test.h5", f / "other.h5", output=f / "site-a.translator", size=32, width=4, blocks=1,
        settings=to_set(total_epochs=1, slices_per_case=1, batch_size=2),
    )  # fmt: skip
    translate_apply(f / "test.h5", model=f / "site-a.translator", output=f / "made.h5")
    (f / "cases/x").mkdir(parents=True)
    (f / "cases/x/1.dcm").write_bytes(bytes(128) + b"DICM")
    (f / "labels.csv").write_text("case,patient,label\nx,x,covid\n")
    (f / "page.pem").write_text("-----BEGIN NOTHING-----\n")
    write_file(f / "salt", bytes(range(32)), mode=0o600)
    keygen("site-d", output=f)
    write_file(f / "passphrase", b"correct horse battery staple\n", mode=0o600)
    (f / "locked").mkdir()
    keygen("site-x", output=f / "locked", passphrase_file=f / "passphrase")
    (f / "new").mkdir()
    (f / "old").mkdir()
    keygen("site-a", output=f / "new", replaces=copy_key(hub.key("site-a"), f / "old"))
    cards = [f / f"{site}.card" for site in hub.sites]
    coordinator = hub.key("coordinator")
    roster_create(cards, federation="wide", key=coordinator, output=f / "wide.json", minimum_sites=2, mode="members")
    with dataset_format.open(f / "test.h5") as data:
        case, kinds = data.ids[0], ("contrast", "non-contrast")
        lines = [f"{one},{kinds[number % 2]}" for number, one in enumerate(data.ids)]
    (f / "known.csv").write_text("\n".join(["case,group", *lines]) + "\n")
    return World(hub, f, case)
