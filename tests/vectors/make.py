"""Makes the test vectors beside it, from the pages under docs/formats alone: python tests/vectors/make.py

Written without ucadi, numpy or a Fourier transform: Python's integers, its floats where the pages say float64,
and the primitives of the `cryptography` package. What ucadi computes is checked against these files, and so
can be what another implementation computes. The same bytes come out each time, but for seals, which nobody
can make twice alike: those that are there are kept, and opened by hand.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from reference import (
    COORDINATOR,
    MEMBERS,
    SITES,
    N,
    as_bytes,
    canonical,
    container,
    encrypt,
    noise,
    public,
    secret_of,
    sha256,
    share,
    total_of,
    widths,
    words,
)
from rounds import (
    CAP,
    EXPONENTS,
    HEADROOM,
    WORK,
    deltas,
    encode,
    unsigned,
    write_round,
)

HERE = Path(__file__).parent

# --- single clauses ----------------------------------------------------------------------------------------


def scheme_vectors() -> dict[str, Any]:
    seed = bytes(range(32))
    A = public(seed, 4)
    sites, count = 3, 20_000
    width = widths(sites)
    secrets = [noise(f"scheme secret {i}", 32) for i in range(sites)]
    largest = (1 << width["value_bits"]) - 1
    values = [
        [largest if j % 5 == i else (j * j * (i + 1)) % (largest + 1) for j in range(count)] for i in range(sites)
    ]
    parts = [encrypt(values[i], sites, seed, secrets[i], f"scheme errors {i}") for i in range(sites)]
    sums = [sum(column) for column in zip(*values, strict=True)]
    S = [sum(column) for column in zip(*map(secret_of, secrets), strict=True)]
    total = total_of(parts)
    return {
        "widths": [widths(k) for k in (1, 2, 3, 4, 5, 10, 16, 17, 64, 65, 100, 256, 257, 1000, 1023)],
        "public": {
            "seed": seed.hex(),
            "A[0][0:4]": [f"{a:016x}" for a in A[0][:4]],
            "A[3][4092:4096]": [f"{a:016x}" for a in A[3][-4:]],
            "sha256_of_4": sha256(as_bytes(A)),
        },
        "secrets": [
            {
                "seed": s.hex(),
                "first": secret_of(s)[:16],
                "sha256_as_int8": sha256(struct.pack(f"<{N}b", *secret_of(s))),
            }
            for s in (bytes(32), seed)
        ],
        "encryption": {
            "sites": sites,
            "count": count,
            "value": "site i (from 0), value j: 2^b - 1 where j mod 5 = i, else (i + 1) j^2 mod 2^b",
            "public_seed": seed.hex(),
            "secret_seeds": [s.hex() for s in secrets],
            "errors": "SHAKE-256 of `ucadi vectors: scheme errors i`, as 32-bit words in order, as for secrets",
            "first_error_words": [f"{w:08x}" for w in words(noise("scheme errors 0", 16), "I")],
            "b[0][0:4]": [[f"{b:016x}" for b in part[0][:4]] for part in parts],
            "b[2][4092:4096]": [[f"{b:016x}" for b in part[2][-4:]] for part in parts],
            "sha256": [sha256(as_bytes(part)) for part in parts],
            "sum_sha256": sha256(as_bytes(total)),
            "secret_sum_sha256_as_int16": sha256(struct.pack(f"<{N}h", *S)),
            "decrypted_first": sums[:8],
            "decrypted_sha256_as_u64": sha256(struct.pack(f"<{count}Q", *sums)),
        },
    }


def shamir_vectors() -> list[dict[str, Any]]:
    secret = secret_of(bytes(32))
    vectors = []
    for threshold, holders in ((2, 3), (3, 5), (7, 7)):
        label = f"shamir {threshold} of {holders}"
        shares = [share(secret, threshold, place + 1, label) for place in range(holders)]
        vectors.append(
            {
                "threshold": threshold,
                "holders": holders,
                "secret_seed": bytes(32).hex(),
                "coefficients": f"of x^k, k from 1: word 4096 (k - 1) + j of SHAKE-256 of `ucadi vectors: {label}`",
                "first_coefficients": words(noise(label, 8), "H"),
                "shares_first": [s[:4] for s in shares],
                "shares_sha256": [sha256(struct.pack(f"<{N}H", *s)) for s in shares],
            }
        )
    return vectors


def fixedpoint_vectors() -> dict[str, Any]:
    bits = widths(len(SITES))["value_bits"]
    return {
        "bits": bits,
        "weight_cap": CAP,
        "headroom": HEADROOM,
        "exponents": EXPONENTS,
        "sites": [
            {
                "site": site,
                "weight": math.prod(WORK[site]),
                "tensor_a_float32": struct.pack("<6f", *deltas(site)["a"]).hex(),
                "encoded_first": encode(site, bits)[:12],
                "sha256_as_i64": sha256(struct.pack("<5008q", *encode(site, bits))),
                "unsigned_first": unsigned(encode(site, bits), bits)[:4],
            }
            for site in SITES
        ],
    }


def document_vectors() -> dict[str, Any]:
    cards = {}
    for party in (COORDINATOR, *MEMBERS):
        card = {"format": "ucadi-card", "version": 1, **party.fields}
        signed = party.sign(card)
        cards[party.name] = {
            "key_file": party.key_file.decode(),
            "card_file": canonical(signed).decode() + "\n",
            "signed_bytes_sha256": sha256(b"ucadi/signed/v1\n" + canonical(card)),
            "fingerprint": party.fingerprint,
        }
    return {
        "parties": cards,
        "canonical": [
            {"value": "é\u2028\U0001f600", "text": canonical("é\u2028\U0001f600").decode()},
            {
                "value": {"b": [1, 1.0, -0.0, 1e22, 1e-7, 0.1], "a": {"a": True, "Z": None}},
                "text": '{"a":{"Z":null,"a":true},"b":[1,1.0,-0.0,1e+22,1e-07,0.1]}',
            },
        ],
    }


def container_vectors() -> dict[str, Any]:
    metadata = {"format": "ucadi-test", "version": 1, "é": [1, 2.5, None]}
    good = container(
        {"b": ("I32", [2, 1], struct.pack("<2i", -1, 7)), "a": ("U8", [], b"\x05"), "c": ("F32", [0, 3], b"")}, metadata
    )
    entry = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
    plain = canonical({"format": "x", "version": 1}).decode()

    def raw(header: Any, data: bytes = bytes(8), pad: bytes = b" ") -> str:
        text = header if isinstance(header, bytes) else canonical(header)
        text += pad * (-len(text) % 8)
        return (struct.pack("<Q", len(text)) + text + data).hex()

    def with_entry(**changes: Any) -> str:
        return raw({"__metadata__": {"ucadi": plain}, "a": {**entry, **changes}})

    def with_metadata(metadata: Any) -> str:
        return raw({"__metadata__": metadata, "a": entry})

    whole = bytes.fromhex(raw({"__metadata__": {"ucadi": plain}, "a": entry}))
    spaced = json.dumps({"__metadata__": {"ucadi": plain}, "a": entry}, sort_keys=True).encode()
    twice = canonical({"__metadata__": {"ucadi": plain}, "a": entry})[:-1] + b',"a":' + canonical(entry) + b"}"
    refused = {
        "empty file": "",
        "shorter than a length": "00" * 7,
        "a header longer than 1 MiB": (struct.pack("<Q", (1 << 20) + 8) + b"{}").hex(),
        "a header longer than the file": (struct.pack("<Q", 64) + b"{}      ").hex(),
        "a header that is no JSON": raw(b"nothing!"),
        "a header that is no object": raw([]),
        "a header with spaces between its parts": raw(spaced),
        "a key twice": raw(twice),
        "padded with zero bytes": raw({"__metadata__": {"ucadi": plain}, "a": entry}, pad=b"\0"),
        "more padding than is needed": raw(canonical({"__metadata__": {"ucadi": "{}"}}) + b" " * 8, b""),
        "a length that is no multiple of 8": (struct.pack("<Q", 2) + b"{}").hex(),
        "no metadata": raw({"a": entry}),
        "metadata of others": with_metadata({"pt": "1"}),
        "a second metadata entry": with_metadata({"ucadi": plain, "more": ""}),
        "metadata that is no object": with_metadata({"ucadi": "[]"}),
        "metadata with NaN": with_metadata({"ucadi": '{"a":NaN}'}),
        "metadata whose keys are not sorted": with_metadata({"ucadi": '{"version":1,"format":"x"}'}),
        "metadata with a key twice": with_metadata({"ucadi": '{"a":1,"a":1}'}),
        "an unknown dtype": with_entry(dtype="BF16", shape=[4]),
        "a shape of another size": with_entry(shape=[9]),
        "a negative dimension": with_entry(shape=[-8]),
        "a dimension that is a float": with_entry(shape=[8.0]),
        "a dimension that is a truth value": with_entry(shape=[True, 8]),
        "more than 8 dimensions": with_entry(shape=[8, 1, 1, 1, 1, 1, 1, 1, 1]),
        "dimensions whose product overflows": with_entry(shape=[1 << 32, 1 << 32, 0], data_offsets=[0, 8]),
        "another key in a tensor's entry": with_entry(more=0),
        "a gap before the first tensor": with_entry(shape=[7], data_offsets=[1, 8]),
        "overlapping tensors": raw({"__metadata__": {"ucadi": plain}, "a": entry, "b": entry}),
        "bytes after the last tensor": (whole + b"\0").hex(),
        "truncated": whole[:-1].hex(),
    }
    return {
        "accepted": {
            "metadata": metadata,
            "tensors": ["a U8 [] 5", "b I32 [2,1] -1 7", "c F32 [0,3]"],
            "file": good.hex(),
        },
        "refused": [{"reason": reason, "file": data} for reason, data in refused.items()],
    }


def main() -> None:
    vectors = {
        "container": container_vectors(),
        "documents": document_vectors(),
        "fixedpoint": fixedpoint_vectors(),
        "scheme": scheme_vectors(),
        "shamir": shamir_vectors(),
    }
    for name, content in vectors.items():
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    for party in (COORDINATOR, *MEMBERS):
        (HERE / f"{party.name}.key").write_bytes(party.key_file)
    write_round(HERE / "members", None)
    write_round(HERE / "threshold", 2)


if __name__ == "__main__":
    main()
