"""A whole round from fixed keys, seeds and updates, in either key mode."""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from reference import (
    COORDINATOR,
    MEMBERS,
    PRIME,
    SITES,
    N,
    Party,
    Tensors,
    as_bytes,
    canonical,
    container,
    encrypt,
    noise,
    secret_of,
    sha256,
    share,
    tag_of,
    tensor_of,
    total_of,
    widths,
    words,
)

# --- fixed point -----------------------------------------------------------------------------------------

SHAPES: dict[str, list[int]] = {"a": [2, 3], "b": [], "c": [5000]}
HEADROOM = 4
CAP = 64


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def spread(label: str, count: int, largest: float) -> list[float]:
    """Values in -largest..largest, exact in float32."""
    return [float32(((u >> 8) / 2**23 - 1) * largest) for u in words(noise(label, 4 * count), "I")]


BASE = {"a": [3.0, -1.0, 0.5, 0.0, 2.0, -2.5], "b": [0.0], "c": [1.0, *spread("base", 4999, 0.5)]}
EXPONENTS = {"a": 2 + HEADROOM, "b": -6 + HEADROOM, "c": 0 + HEADROOM}


def deltas(site: str) -> dict[str, list[float]]:
    """With examples x epochs half the cap, odd multiples of the quantum are rounded from one half."""
    quantum = 2.0 ** (EXPONENTS["a"] - 23)
    halves = [k * quantum for k in (1, -1, 3, -3, 5, 7)]
    return {"a": halves, "b": [-0.1 if site == "site-b" else 0.2], "c": [float32(v) for v in spread(site, 5000, 0.25)]}


WORK = {"site-a": (16, 2), "site-b": (64, 1), "site-c": (7, 3)}


def encode(site: str, bits: int) -> list[int]:
    weight = math.prod(WORK[site])
    change = deltas(site)
    vector = [weight]
    for name in sorted(SHAPES):
        q = 2.0 ** (EXPONENTS[name] - bits + 1)
        vector += [round(d * (weight / CAP) / q) for d in change[name]]  # Python rounds half to even
    return vector


def unsigned(vector: list[int], bits: int) -> list[int]:
    return [vector[0], *(v + (1 << (bits - 1)) for v in vector[1:])]


def float_tensors(values: dict[str, list[float]]) -> Tensors:
    return {name: ("F32", SHAPES[name], struct.pack(f"<{len(v)}f", *v)) for name, v in values.items()}


# --- a whole round ---------------------------------------------------------------------------------------


def write_round(folder: Path, threshold: int | None) -> None:
    """Roster, plan, uploads, their sum, answers in threshold mode, what it opens to, and the next weights."""
    folder.mkdir(exist_ok=True)
    mode = "members" if threshold is None else "threshold"
    base = container(
        float_tensors(BASE),
        {"format": "ucadi-weights", "version": 1, "architecture": {"name": "vector"}, "origin": {"seed": 0}},
    )
    roster = {
        "format": "ucadi-roster",
        "version": 1,
        "federation": "vectors",
        "sequence": 1,
        "previous": None,
        "coordinator": COORDINATOR.fields,
        "members": [member.fields for member in MEMBERS],
        "policy": {"mode": mode, "minimum_sites": 3, "threshold": threshold or 1},
    }
    roster_file = canonical(COORDINATOR.sign(roster)) + b"\n"
    plan = {
        "format": "ucadi-plan",
        "version": 1,
        "federation": "vectors",
        "round": 7,
        "base": sha256(base),
        "roster": sha256(roster_file),
        "mode": mode,
        "sites": list(SITES),
        "quorum": 3,
        "weight_cap": CAP,
        "layout": [{"name": n, "shape": s, "exponent": EXPONENTS[n]} for n, s in sorted(SHAPES.items())],
        "schedule": {
            "local_epochs": 1,
            "total_epochs": 100,
            "warmup_epochs": 5,
            "learning_rate": 0.01,
            "batch_size": 16,
            "drop_rate": 0.1,
            "precision": "float32",
            "seed": 0,
        },
    }
    plan_file = canonical(COORDINATOR.sign(plan)) + b"\n"
    digest = sha256(plan_file)
    bits = widths(len(SITES))["value_bits"]
    files = {"base.weights": base, "federation.json": roster_file, "plan.json": plan_file}
    files |= consent_files(sha256(roster_file))
    parts, seals, documents = [], [], []
    for place, site in enumerate(SITES):
        examples, epochs = WORK[site]
        facts = {"site": site, "base": sha256(base), "examples": examples, "epochs": epochs}
        update = {"format": "ucadi-update", "version": 1, **facts}
        files[f"{site}.update"] = container(float_tensors(deltas(site)), update)
        seed = noise(f"{site} secret", 32)
        part = encrypt(unsigned(encode(site, bits), bits), len(SITES), bytes.fromhex(digest), seed, f"{site} errors")
        rows = list(seal_rows(folder, site, plan, digest, sha256(as_bytes(part)), seed, threshold))
        document = MEMBERS[place].sign(
            {
                "format": "ucadi-ciphertext",
                "version": 1,
                "scheme": "rlwe-4096-64",
                "plan": digest,
                "site": site,
                "digests": {"ciphertext": sha256(as_bytes(part)), "sealed": sha256(b"".join(rows))},
            }
        )
        files[f"{site}.enc"] = container(ciphertext_tensors(part, [3, len(rows[0])], b"".join(rows)), document)
        parts.append(part)
        seals.append(b"".join(rows))
        documents.append(document)
    total = total_of(parts)
    signed = {
        "format": "ucadi-ciphertext-sum",
        "version": 1,
        "scheme": "rlwe-4096-64",
        "plan": digest,
        "contributions": documents,
        "digests": {"ciphertext": sha256(as_bytes(total)), "sealed": sha256(b"".join(seals))},
    }
    shape = [3, 3, len(seals[0]) // 3]
    files["sum.enc"] = container(ciphertext_tensors(total, shape, b"".join(seals)), COORDINATOR.sign(signed))
    receipt = {
        "format": "ucadi-receipt",
        "version": 1,
        "federation": "vectors",
        "round": 7,
        "plan": digest,
        "base": sha256(base),
        "status": "closed",
        "contributions": {site: sha256(files[f"{site}.enc"]) for site in SITES},
        "refused": {},
        "missing": [],
        "aggregate": sha256(files["sum.enc"]),
        "previous": None,
    }
    short = {name: receipt[name] for name in ("federation", "round", "plan", "aggregate", "previous")}
    receipt["mark"] = COORDINATOR.sign({"mark": 1, **short})
    files["receipt.json"] = canonical(COORDINATOR.sign(receipt)) + b"\n"
    for place, site in enumerate(SITES):
        said = sha256(files["receipt.json"])
        sums = struct.pack("<128Q", *tag_of(parts[place], bytes.fromhex(digest), bytes.fromhex(said))).hex()
        fields = {"federation": "vectors", "plan": digest, "receipt": said, "site": site, "sums": sums}
        tag = MEMBERS[place].sign({"format": "ucadi-tag", "version": 1, **fields})
        files[f"{site}.tag.json"] = canonical(tag) + b"\n"
    if threshold is not None:
        for place in range(threshold):
            files[f"{SITES[place]}.partial"] = answer(folder, place, digest, documents, threshold)
    added = [sum(column) for column in zip(*(encode(site, bits) for site in SITES), strict=True)]
    metadata = {
        "format": "ucadi-aggregate",
        "version": 1,
        "base": sha256(base),
        "plan": digest,
        "sites": list(SITES),
    }
    files["opened.aggregate"] = container(
        {"sum": ("I32", [len(added)], struct.pack(f"<{len(added)}i", *added))}, metadata
    )
    following, start = {}, 1
    for name in sorted(SHAPES):
        q = 2.0 ** (EXPONENTS[name] - bits + 1)
        sums = added[start : start + len(BASE[name])]
        following[name] = [b + v * q * (CAP / added[0]) for b, v in zip(BASE[name], sums, strict=True)]
        start += len(sums)
    origin = {"base": sha256(base), "change": sha256(files["opened.aggregate"])}
    files["next.weights"] = container(
        float_tensors(following),
        {"format": "ucadi-weights", "version": 1, "architecture": {"name": "vector"}, "origin": origin},
    )
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def consent_files(roster: str) -> dict[str, bytes]:
    """Each party's ledger, with the line by which a member accepts the roster, and the members' consents."""
    files = {}
    for party in (COORDINATOR, *MEMBERS):
        first = {"format": "ucadi-ledger", "version": 1, "key": party.digest, "site": party.name}
        lines = [canonical(first) + b"\n"]
        if party is not COORDINATOR:
            accepted = {
                "previous": sha256(lines[0]),
                "what": "accepted",
                "federation": "vectors",
                "number": 1,
                "document": roster,
                "content": "",
                "base": "",
                "sites": [],
            }
            lines.append(canonical(accepted) + b"\n")
            consent = {
                "format": "ucadi-consent",
                "version": 1,
                "federation": "vectors",
                "roster": roster,
                "sequence": 1,
                "site": party.name,
                "ledger": sha256(lines[1]),
                "lot": lot_anchor(party.secret["signing"]),
                "size_band": 256 if party.name == "site-b" else None,
            }
            files[f"consents/{party.name}-0001.json"] = canonical(party.sign(consent)) + b"\n"
        files[f"{party.name}.ledger"] = b"".join(lines)
    return files


def lot_anchor(signing: bytes) -> str:
    """The last of ten thousand digests, one of the other."""
    value = hmac.new(signing, b"ucadi/lot/v1\nvectors", hashlib.sha256).digest()
    for _ in range(10_000):
        value = hashlib.sha256(value).digest()
    return value.hex()


def ciphertext_tensors(polynomials: list[list[int]], shape: list[int], sealed: bytes) -> Tensors:
    return {
        "ciphertext": ("U64", [len(polynomials), N], as_bytes(polynomials)),
        "sealed": ("U8", shape, sealed),
    }


def seal_rows(
    folder: Path, site: str, plan: dict[str, Any], digest: str, ciphertext: str, seed: bytes, threshold: int | None
) -> Iterator[bytes]:
    for place, member in enumerate(MEMBERS):
        secret = seed
        if threshold is not None:
            secret = struct.pack(f"<{N}H", *share(secret_of(seed), threshold, place + 1, f"{site} shares"))
        bound = {
            "ciphertext": ciphertext,
            "federation": plan["federation"],
            "plan": digest,
            "receiver": member.name,
            "round": plan["round"],
            "sender": site,
        }
        yield kept(folder / f"{site}.enc", place, member, secret, b"ucadi/seal/v1\n" + canonical(bound))


def kept(path: Path, place: int, member: Party, secret: bytes, info: bytes) -> bytes:
    """The seal in row `place` of a file that is there already, if it opens to `secret`; else a fresh one."""
    size = len(secret) + 1136
    try:
        row = tensor_of(path, "sealed")[place * size : (place + 1) * size]
        if member.open(row, info) == secret:
            return row
    except Exception:
        print(f"{path.name}: a new seal for {member.name}")
    return member.seal(secret, info)


def answer(folder: Path, place: int, digest: str, documents: list[dict[str, Any]], threshold: int) -> bytes:
    holder = MEMBERS[place]
    rows = [[d["site"], d["digests"]["ciphertext"], d["digests"]["sealed"]] for d in documents]
    contributions = sha256(canonical(rows))
    secrets = [secret_of(noise(f"{site} secret", 32)) for site in SITES]
    shares = [share(s, threshold, place + 1, f"{site} shares") for s, site in zip(secrets, SITES, strict=True)]
    added = [sum(column) % PRIME for column in zip(*shares, strict=True)]
    context = {"contributions": contributions, "holder": holder.name, "plan": digest}
    bound = b"ucadi/answer/v1\n" + canonical(context)
    key = noise(f"{holder.name} answer", 32)
    body = AESGCM(key).encrypt(bytes(12), struct.pack(f"<{N}H", *added), bound)
    path = folder / f"{holder.name}.partial"
    sealed = b"".join(kept(path, i, member, key, bound) for i, member in enumerate(MEMBERS))
    digests = {"body": sha256(body), "sealed": sha256(sealed)}
    fields = {"plan": digest, "site": holder.name, "contributions": contributions, "unchecked": [], "digests": digests}
    document = holder.sign({"format": "ucadi-partial", "version": 1, **fields})
    return container({"body": ("U8", [len(body)], body), "sealed": ("U8", [3, 1168], sealed)}, document)
