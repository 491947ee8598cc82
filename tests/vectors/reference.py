"""Formats and scheme once more, for test vectors: from docs/formats alone, without ucadi, numpy or Fourier transforms.

Python's integers, and the primitives of the `cryptography` package.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

N = 4096
Q = 1 << 64
PRIME = 65521
SITES = ("site-a", "site-b", "site-c")
ITEM_BYTES = {"F32": 4, "I32": 4, "U8": 1, "U64": 8}

Tensors = dict[str, tuple[str, list[int], bytes]]
"""dtype, shape and bytes by name."""


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def noise(label: str, length: int) -> bytes:
    """What stands in for randomness here; anyone can have it."""
    return hashlib.shake_256(f"ucadi vectors: {label}".encode()).digest(length)


def words(data: bytes, code: str) -> list[int]:
    return list(struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data))


# --- container and signed documents --------------------------------------------------------------------


def container(tensors: Tensors, metadata: dict[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"ucadi": canonical(metadata).decode()}}
    start = 0
    for name, (dtype, shape, data) in sorted(tensors.items()):
        assert len(data) == ITEM_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = canonical(header)
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, (_, _, data) in sorted(tensors.items()))


def tensor_of(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    first, last = json.loads(data[8:end])[name]["data_offsets"]
    return data[end + first : end + last]


@dataclass(frozen=True)
class Party:
    """Key pairs from fixed seeds."""

    name: str

    @property
    def secret(self) -> dict[str, bytes]:
        lengths = {"signing": 32, "sealing": 96, "transport": 32}
        return {use: noise(f"{self.name} {use}", length) for use, length in lengths.items()}

    @property
    def sealing(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        seed = self.secret["sealing"]
        return MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])

    @property
    def public(self) -> dict[str, bytes]:
        mlkem, x25519 = self.sealing
        transport = X25519PrivateKey.from_private_bytes(self.secret["transport"])
        return {
            "signing": Ed25519PrivateKey.from_private_bytes(self.secret["signing"]).public_key().public_bytes_raw(),
            "sealing": mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
            "transport": transport.public_key().public_bytes_raw(),
        }

    @property
    def fields(self) -> dict[str, str]:
        return {"name": self.name, **{use: key.hex() for use, key in self.public.items()}}

    @property
    def key_file(self) -> bytes:
        secret = {use: key.hex() for use, key in self.secret.items()}
        return canonical({"format": "ucadi-key", "version": 1, "name": self.name, **secret}) + b"\n"

    @property
    def digest(self) -> str:
        public = self.public
        parts = [b"ucadi/fingerprint/v1", self.name.encode(), *(public[u] for u in ("signing", "sealing", "transport"))]
        return sha256(b"\0".join(parts))

    @property
    def fingerprint(self) -> str:
        return self.digest[:20]

    def sign(self, document: dict[str, Any]) -> dict[str, Any]:
        key = Ed25519PrivateKey.from_private_bytes(self.secret["signing"])
        return {**document, "signature": key.sign(b"ucadi/signed/v1\n" + canonical(document)).hex()}

    def seal(self, part: bytes, info: bytes) -> bytes:
        mlkem, x25519 = self.sealing
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        key = hpke.MLKEM768X25519PublicKey(mlkem.public_key(), x25519.public_key())
        return suite.encrypt(part, key, info=info)

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """RFC 9180, base mode, by hand: KEM 0x647a (X-Wing), KDF 0x0001, AEAD 0x0002."""
        to_mlkem, to_x25519, encrypted = sealed[:1088], sealed[1088:1120], sealed[1120:]
        mlkem, x25519 = self.sealing
        shared = mlkem.decapsulate(to_mlkem) + x25519.exchange(X25519PublicKey.from_public_bytes(to_x25519))
        combined = shared + to_x25519 + x25519.public_key().public_bytes_raw() + rb"\.//^" + b"\\"
        suite = b"HPKE" + struct.pack(">HHH", 0x647A, 1, 2)

        def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
            return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")

        def expand(key: bytes, label: bytes, context: bytes, length: int) -> bytes:
            labelled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + context
            return hmac.digest(key, labelled + b"\x01", "sha256")[:length]

        context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
        secret = extract(hashlib.sha3_256(combined).digest(), b"secret", b"")
        key, nonce = expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
        return AESGCM(key).decrypt(nonce, encrypted, b"")


COORDINATOR = Party("coordinator")
MEMBERS = [Party(name) for name in SITES]

# --- the scheme ------------------------------------------------------------------------------------------


def key_stream(tag: str, seed: bytes, length: int) -> bytes:
    key = hashlib.sha256(tag.encode() + b"\0" + seed).digest()
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(length))


def public(seed: bytes, count: int) -> list[list[int]]:
    stream = words(key_stream("ucadi/lwe/public/v1", seed, 8 * N * count), "Q")
    return [stream[N * p : N * (p + 1)] for p in range(count)]


def binomial(data: bytes) -> list[int]:
    drawn = words(data, "I")
    return [u.bit_count() - v.bit_count() for u, v in zip(drawn[::2], drawn[1::2], strict=True)]


def secret_of(seed: bytes) -> list[int]:
    return binomial(key_stream("ucadi/lwe/secret/v1", seed, 8 * N))


def product(a: list[int], s: list[int]) -> list[int]:
    """Modulo X^N + 1 and Q; the coefficients of each factor side by side in one integer (Kronecker)."""
    digit = 16

    def linear(factor: list[int]) -> list[int]:
        packed = [int.from_bytes(b"".join(c.to_bytes(digit, "little") for c in f), "little") for f in (a, factor)]
        data = (packed[0] * packed[1]).to_bytes(2 * N * digit, "little")
        return [int.from_bytes(data[i : i + digit], "little") for i in range(0, len(data), digit)]

    plus, minus = linear([max(c, 0) for c in s]), linear([max(-c, 0) for c in s])
    c = [p - m for p, m in zip(plus, minus, strict=True)]
    return [(c[j] - c[j + N]) % Q for j in range(N)]


def widths(sites: int) -> dict[str, int]:
    noise_bits = 7 + next(d for d in itertools.count() if 4**d >= sites)
    slot_bits = (64 - noise_bits) // 2
    value_bits = max(b for b in range(1, 25) if sites * ((1 << b) - 1) < 1 << slot_bits)
    return {"sites": sites, "noise_bits": noise_bits, "slot_bits": slot_bits, "value_bits": value_bits}


def messages(values: list[int], slot_bits: int) -> list[list[int]]:
    """Unsigned values as polynomials."""
    padded = values + [0] * (64 + -(len(values) + 64) % (2 * N))
    runs = [padded[i : i + 2 * N] for i in range(0, len(padded), 2 * N)]
    return [[run[j] + (run[N + j] << slot_bits) for j in range(N)] for run in runs]


def encrypt(values: list[int], sites: int, public_seed: bytes, secret_seed: bytes, errors: str) -> list[list[int]]:
    width = widths(sites)
    packed = messages(values, width["slot_bits"])
    s = secret_of(secret_seed)
    e = binomial(noise(errors, 8 * N * len(packed)))
    return [
        [
            (c + e[N * p + j] + (m << width["noise_bits"])) % Q
            for j, (c, m) in enumerate(zip(product(a, s), M, strict=True))
        ]
        for p, (a, M) in enumerate(zip(public(public_seed, len(packed)), packed, strict=True))
    ]


def as_bytes(polynomials: list[list[int]]) -> bytes:
    return b"".join(struct.pack(f"<{N}Q", *polynomial) for polynomial in polynomials)


def total_of(parts: list[list[list[int]]]) -> list[list[int]]:
    return [[sum(column) % Q for column in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]


def tag_of(polynomials: list[list[int]], plan: bytes, receipt: bytes) -> list[int]:
    """The 128 subset sums of a ciphertext's words, by the digests of plan and receipt."""
    seed = hashlib.sha256(plan + receipt).digest()
    sums = [0] * 128
    stream = key_stream("ucadi/lwe/tag/v1", seed, 16 * N * len(polynomials))
    for i, word in enumerate(itertools.chain.from_iterable(polynomials)):
        block = stream[16 * i : 16 * i + 16]
        for j in range(128):
            if block[j // 8] >> (j % 8) & 1:
                sums[j] += word
    return [value % Q for value in sums]


def share(secret: list[int], threshold: int, point: int, label: str) -> list[int]:
    """f(point) of each coefficient, f's other coefficients from `label`: 16-bit words modulo the prime."""
    drawn = words(noise(label, 2 * N * (threshold - 1)), "H")
    higher = [drawn[N * k : N * (k + 1)] for k in range(threshold - 1)]
    return [
        (s + sum(h[j] * pow(point, k, PRIME) for k, h in enumerate(higher, start=1))) % PRIME
        for j, s in enumerate(secret)
    ]
