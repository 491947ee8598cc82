"""ucadi inspect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ucadi import filetypes
from ucadi.errors import FormatError
from ucadi.files import opened, read_bytes
from ucadi.formats import checkpoint as checkpoint_format
from ucadi.formats import ciphertext as ciphertext_format
from ucadi.formats import container, signed, translation_checkpoint
from ucadi.formats import courier as courier_format
from ucadi.formats import handover as handover_format
from ucadi.formats import histogram as histogram_format
from ucadi.formats import keys as key_format
from ucadi.formats import ledger as ledger_format
from ucadi.formats import partial as partial_format
from ucadi.formats import plan as plan_format
from ucadi.formats import policy as policy_format
from ucadi.formats import predictions as predictions_format
from ucadi.formats import receipt as receipt_format
from ucadi.formats import roster as roster_format
from ucadi.formats import split as split_format
from ucadi.formats import statement as statement_format
from ucadi.formats import tag as tag_format
from ucadi.formats import translator as translator_format
from ucadi.formats import update as update_format
from ucadi.formats import weights as weights_format
from ucadi.formats.container import Container
from ucadi.formats.histogram import Histogram
from ucadi.formats.predictions import Predictions
from ucadi.formats.signed import Fields
from ucadi.identity import PublicKeys
from ucadi.kinds import Format
from ucadi.labels import LABELS, Diagnosis

if TYPE_CHECKING:
    from ucadi.formats.dataset import Synthetic


_NO_FACTS = ("format", "version", "digests", "signature")


@dataclass(frozen=True)
class InspectResult:
    """What a file is: its format, size, digest, and the facts that its kind has to tell."""

    path: Path
    format: str
    bytes: int
    sha256: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        rows = {"format": self.format, "size": f"{self.bytes:,} bytes", "sha256": self.sha256, **self.facts}
        return "\n".join([str(self.path), *(f"  {key.replace('_', ' '):<14}{_text(rows[key])}" for key in rows)])


def inspect_file(path: Annotated[Path, typer.Argument(help="Any file that ucadi writes.")]) -> InspectResult:
    """Say what a file is: its kind, what it was made from, who signed it.

    Signatures are named here but not checked, as that takes a roster: see verify. Secret keys are never shown.

    Example:
        ucadi inspect base.weights
    """
    with opened(path) as file:
        start = file.read(9)
    if path.name.endswith(policy_format.SUFFIX):
        kind, facts = "a site's policy", asdict(policy_format.read(path))
    elif start.startswith(filetypes.HDF5):
        kind, facts = _dataset(path)
    elif filetypes.describe(path) == Format.COURIER.words:
        kind, facts = _parcel(path)
    elif filetypes.describe(path) == Format.LEDGER.words:
        kind, facts = _ledger(path)
    elif start.removeprefix(b"\xef\xbb\xbf").startswith(b"{"):
        kind, facts = _document(path)
    else:
        held = container.read(path)
        kind, facts = str(held.metadata.get("format")), _container(held, path.name)
    return InspectResult(path, kind, path.stat().st_size, container.file_digest(path), facts)


def _text(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{_text(key)} {_text(inner)}" for key, inner in value.items())
        case list() | tuple():
            return ", ".join(map(_text, value))
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            text = str(value)
            return text if text.isprintable() else ascii(text)  # a terminal would obey control characters


def _dataset(path: Path) -> tuple[str, dict[str, Any]]:
    from ucadi.formats import dataset as dataset_format

    with dataset_format.open(path) as dataset:
        labels = Counter("unlabelled" if label is None else label.label for label in dataset.labels)
        return dataset_format.FORMAT, {
            "cases": len(dataset),
            "patients": len(set(dataset.patients)),
            "size_pixels": dataset.size,
            "labels": dict(sorted(labels.items())),
            "for_example": {
                label: dataset.ids[list(dataset.labels).index(Diagnosis.parse(label))]
                for label in LABELS
                if label in labels
            },
            "rejected": len(dataset.rejections),
            **_synthetic(dataset.synthetic),
        }


def _synthetic(found: Sequence[Synthetic | None]) -> dict[str, Any]:
    """How many cases no scanner made, and what made them; nothing where there are none."""
    counts = Counter(f"{one.kind} by {one.model}" for one in found if one)
    return {"synthetic": dict(sorted(counts.items()))} if counts else {}


def _parcel(path: Path) -> tuple[str, dict[str, Any]]:
    with courier_format.opened(path) as parcel:
        return courier_format.FORMAT, {"for": parcel.receiver, "files": [item.name for item in parcel.items]}


def _ledger(path: Path) -> tuple[str, dict[str, Any]]:
    told = ledger_format.parse(read_bytes(path, ledger_format.MAX_BYTES), path.name)
    counts = Counter(entry.what.value for entry in told.history.entries)
    return ledger_format.FORMAT, {"site": told.site, "lines": dict(sorted(counts.items())), "head": told.history.head}


def _fields(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a file of a kind that nothing more is known of says of itself; FormatError for one of no kind of ucadi."""
    kind = values.get("format")
    if Format.of(str(kind)) is None:
        raise FormatError(f"{name}: a {kind} file, which this program does not know")
    return {key: value for key, value in values.items() if key not in _NO_FACTS}


def _document(path: Path) -> tuple[str, dict[str, Any]]:
    document = signed.read_document(path)
    kind = str(document["format"])
    match kind:
        case key_format.KEY_FORMAT:
            return kind, {"name": document.get("name"), "content": "secret keys: keep this file where it is"}
        case key_format.CARD_FORMAT:
            card = key_format.read_card(path).keys
            return kind, {"name": card.name, "fingerprint": card.fingerprint}
        case roster_format.FORMAT:
            roster = roster_format.read(path)
            return kind, {
                "federation": roster.federation,
                "signed_by": _party(roster.coordinator),
                "members": [_party(member) for member in roster.members],
                "policy": str(roster.policy),
            }
        case plan_format.FORMAT:
            fields = Fields(document, path.name)
            return kind, {
                "federation": fields.text("federation"),
                "round": fields.number("round"),
                "base": fields.digest("base"),
                "roster": fields.digest("roster"),
                "sites": fields.texts("sites"),
                "quorum": fields.number("quorum"),
                "weight_cap": fields.number("weight_cap"),
                "tensors": len(fields.objects("layout")),
                "schedule": fields.object("schedule").values,
            }
        case receipt_format.FORMAT:
            fields = Fields(document, path.name)
            return kind, {
                "federation": fields.text("federation"),
                "round": fields.number("round"),
                "status": fields.text("status"),
                "sites": list(fields.object("contributions").values),
                "refused": fields.object("refused").values,
                "missing": fields.texts("missing"),
                "plan": fields.digest("plan"),
                "base": fields.digest("base"),
                "aggregate": document.get("aggregate"),
                "previous": document.get("previous"),
            }
        case statement_format.FORMAT:
            fields = Fields(document, path.name)
            return kind, {
                "signed_by": fields.text("site"),
                "plan": fields.digest("plan"),
                "model": document.get("model"),
                "seconds": fields.object("seconds").values,
                "metrics": fields.object("metrics").values,
            }
        case tag_format.FORMAT:
            tag = tag_format.parse(document, path.name)
            return kind, {"signed_by": tag.site, "plan": tag.plan, "receipt": tag.receipt}
        case split_format.FORMAT:
            split = split_format.read(path)
            return kind, {"test": len(split.test), "folds": [len(fold) for fold in split.folds]}
        case _:
            return kind, _fields(document, path.name)


def _party(keys: PublicKeys) -> str:
    return f"{keys.name} ({keys.fingerprint})"


def _container(held: Container, name: str) -> dict[str, Any]:
    match held.metadata.get("format"):
        case weights_format.FORMAT:
            return {
                "architecture": held.metadata.get("architecture"),
                "origin": held.metadata.get("origin"),
                "tensors": len(held.tensors),
                "values": sum(tensor.size for tensor in held.tensors.values()),
            }
        case translator_format.FORMAT:
            return {
                "architecture": held.metadata.get("architecture"),
                "window_hu": held.metadata.get("window_hu"),
                "origin": held.metadata.get("origin"),
                "values": sum(tensor.size for tensor in held.tensors.values()),
            }
        case update_format.UPDATE_FORMAT:
            update = update_format.parse_update(held, name)
            return {
                "site": update.site,
                "base": update.base,
                "examples": update.examples,
                "epochs": update.epochs,
                **({"plan": update.plan} if update.plan else {}),
                "values": sum(delta.size for delta in update.deltas.values()),
                **({"privacy": asdict(update.privacy)} if update.privacy else {}),
            }
        case update_format.AGGREGATE_FORMAT:
            aggregate = update_format.parse_aggregate(held, name)
            return {
                "sites": aggregate.sites,
                "rule": aggregate.rule,
                "weight": aggregate.weight,
                "base": aggregate.base,
                "plan": aggregate.plan,
                "values": aggregate.total.size - 1,
            }
        case ciphertext_format.CIPHERTEXT_FORMAT:
            upload = ciphertext_format.parse_ciphertext(held, name)
            return {"plan": upload.contribution.plan, "signed_by": upload.contribution.site, **_sizes(held)}
        case ciphertext_format.SUM_FORMAT:
            total = ciphertext_format.parse_sum(held, name)
            return {"plan": total.plan, "sites": total.sites, **_sizes(held)}
        case partial_format.FORMAT:
            partial = partial_format.parse(held, name)
            return {"signed_by": partial.member, "plan": partial.plan, "contributions": partial.contributions}
        case handover_format.FORMAT:
            handover = handover_format.parse(held, name)
            return {"signed_by": handover.site, "plan": handover.plan, "receivers": len(handover.sealed)}
        case checkpoint_format.FORMAT:
            fields = Fields(held.metadata, name)
            training = fields.object("training").values
            epoch, step = fields.number("next_epoch"), fields.number("next_step")
            return {"base": training.get("base"), "epochs": training.get("epochs"), "goes_on_at": [epoch, step]}
        case translation_checkpoint.FORMAT:
            fields = Fields(held.metadata, name)
            epoch, step = fields.number("next_epoch"), fields.number("next_step")
            return {"training": fields.object("training").values, "goes_on_at": [epoch, step]}
        case predictions_format.FORMAT:
            return _predictions(predictions_format.parse(held, name))
        case histogram_format.FORMAT:
            return _histogram(histogram_format.parse(held, name))
        case _:
            return _fields(held.metadata, name)


def _sizes(held: Container) -> dict[str, Any]:
    return {
        "scheme": held.metadata["scheme"],
        "polynomials": len(held.tensors["ciphertext"]),
        "receivers": held.tensors["sealed"].shape[-2],
    }


def _histogram(held: Histogram) -> dict[str, Any]:
    without, having = (int(n) for n in held.counts.sum(axis=1))
    counted = {name: names for name, names in (("datasets", held.datasets), ("sites", held.sites)) if names}
    return {"model": held.model, **counted, "covid": having, "others": without}


def _predictions(held: Predictions) -> dict[str, Any]:
    counts = Counter(int(label) for label in held.labels)
    return {
        "model": held.model,
        "dataset": held.dataset,
        "cases": len(held.cases),
        "labels": {"unlabelled" if i < 0 else LABELS[i]: counts[i] for i in sorted(counts)},
    }
