"""The plan of a round as a file: signed by the coordinator, immutable, and named by its digest in all that follows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ucadi.errors import FormatError, MismatchError, UsageError
from ucadi.fed.fixedpoint import Layout, TensorRange
from ucadi.fed.optimisers import FEDAVG
from ucadi.fed.plan import Plan
from ucadi.formats import schedules
from ucadi.formats.container import GET_AGAIN, file_digest
from ucadi.formats.roster import Roster
from ucadi.formats.signed import Fields, read_document, sign, verify, write_document
from ucadi.identity import SecretKeys
from ucadi.kinds import Format

FORMAT = Format.PLAN.id


def write(path: Path, plan: Plan, keys: SecretKeys, *, force: bool = False) -> None:
    """Writes the plan, signed by the coordinator's `keys`."""
    document = {
        **Format.PLAN.head,
        "federation": plan.federation,
        "round": plan.round,
        "base": plan.base,
        "roster": plan.roster,
        "mode": plan.mode,
        "sites": list(plan.sites),
        "quorum": plan.quorum,
        "weight_cap": plan.weight_cap,
        "layout": [{"name": t.name, "shape": list(t.shape), "exponent": t.exponent} for t in plan.layout.tensors],
        "schedule": schedules.to_document(plan.schedule),
    }
    if plan.server != FEDAVG:
        document["server"] = asdict(plan.server)
    write_document(path, sign(document, keys), force=force)


def read(path: Path, roster: Roster) -> tuple[Plan, str]:
    """Reads a plan and its digest; checks that the roster's coordinator signed it, and for this roster."""
    document = read_document(path, FORMAT)
    verify(document, roster.coordinator, path.name)
    fields = Fields(document, path.name)
    if fields.digest("roster") != roster.digest:
        raise MismatchError(
            f"{path.name}: made for another roster", hint="use the roster that the round was opened with"
        )
    try:
        plan = _plan(fields, roster)
    except UsageError as error:
        raise FormatError(f"{path.name}: {error.message}", hint=error.hint or GET_AGAIN) from None
    for site in plan.sites:
        roster.member(site)
    if (plan.federation, fields.text("mode")) != (roster.federation, roster.policy.mode):
        raise MismatchError(f"{path.name}: federation or key mode is not the roster's", hint="do not use this plan")
    return plan, file_digest(path)


def _plan(fields: Fields, roster: Roster) -> Plan:
    return Plan(
        federation=fields.text("federation"),
        round=fields.number("round", least=1),
        base=fields.digest("base"),
        roster=fields.digest("roster"),
        mode=roster.policy.mode,
        sites=tuple(fields.texts("sites")),
        quorum=fields.number("quorum"),
        weight_cap=fields.number("weight_cap"),
        layout=Layout(tuple(_tensor(tensor) for tensor in fields.objects("layout"))),
        schedule=schedules.parse(fields.object("schedule").values),
        server=schedules.parse_server(fields.object("server").values) if "server" in fields.values else FEDAVG,
    )


def _tensor(fields: Fields) -> TensorRange:
    shape = fields.values.get("shape")
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(n) is int and 0 < n < 1 << 32 for n in shape):
        raise FormatError("the layout holds a tensor without a shape", hint=GET_AGAIN)
    return TensorRange(fields.text("name"), tuple(shape), fields.number("exponent", least=-64, most=64))
