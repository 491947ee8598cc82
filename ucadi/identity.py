"""Who signs and who may open: the key pairs of a site or a coordinator.

Each party holds an Ed25519 key (RFC 8032) to sign with and an HPKE key (RFC 9180) to receive secrets
with; the latter is the post-quantum hybrid of ML-KEM-768 (FIPS 203) and X25519, so that what travels
today is not opened by a later quantum computer. A third key, X25519, encrypts and authenticates its
connection to a relay; it is a key of its own because no key should serve two protocols. All of it comes
from the `cryptography` package.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ucadi.errors import SignatureError, UsageError
from ucadi.kinds import SITE

SEAL_OVERHEAD = 1136
"""Bytes that sealing adds: the encapsulated key (1,120) and the authentication tag (16)."""

AUTHENTICATION_BYTES = 16
"""Bytes that AES-GCM adds."""

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

_NAME = re.compile(SITE)

_SIGNING_BYTES = 32
_NONCE_BYTES = 12
_MLKEM_SEED_BYTES = 64
_MLKEM_PUBLIC_BYTES = 1184
_X25519_BYTES = 32


def fingerprint(digest: str) -> str:
    """The first 80 bits of a digest, as five groups of hex to compare by telephone."""
    return " ".join(digest[i : i + 4] for i in range(0, 20, 4))


@dataclass(frozen=True)
class PublicKeys:
    """The public half of a party's keys: its name, `signing` (32 bytes), `sealing` (1,216) and `transport` (32)."""

    name: str
    signing: bytes
    sealing: bytes
    transport: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        lengths = (len(self.signing), len(self.sealing), len(self.transport))
        if lengths != (_SIGNING_BYTES, _MLKEM_PUBLIC_BYTES + _X25519_BYTES, _X25519_BYTES):
            raise SignatureError(f"{self.name}: public keys of a wrong length", hint="make keys with keygen")

    @property
    def digest(self) -> str:
        """SHA-256 over name and keys, in hex."""
        parts = [b"ucadi/fingerprint/v1", self.name.encode(), self.signing, self.sealing, self.transport]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The first 80 bits of the digest, as five groups of hex to compare by telephone."""
        return fingerprint(self.digest)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this party's over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.signing).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """`secret` so that only this party opens it, and only under the same `context` (HPKE base mode, info)."""
        mlkem = MLKEM768PublicKey.from_public_bytes(self.sealing[:_MLKEM_PUBLIC_BYTES])
        x25519 = X25519PublicKey.from_public_bytes(self.sealing[_MLKEM_PUBLIC_BYTES:])
        return _SUITE.encrypt(secret, hpke.MLKEM768X25519PublicKey(mlkem, x25519), info=context)


@dataclass(frozen=True, repr=False)
class SecretKeys:
    """The secret half: the seeds of the three key pairs. Never printed, never leaves its file."""

    name: str
    signing: bytes
    sealing: bytes
    transport: bytes
    round_sealing: bytes | None = None
    """The secret half of a sealing key for one round, as `sealing`; what is sealed to either opens."""

    def __post_init__(self) -> None:
        check_name(self.name)
        lengths = (len(self.signing), len(self.sealing), len(self.transport))
        if lengths != (_SIGNING_BYTES, _MLKEM_SEED_BYTES + _X25519_BYTES, _X25519_BYTES):
            raise SignatureError(
                f"{self.name}: secret keys of a wrong length", hint="use the key file as keygen made it"
            )

    @classmethod
    def generate(cls, name: str) -> SecretKeys:
        """Fresh keys from the operating system's randomness."""
        return cls(
            name,
            os.urandom(_SIGNING_BYTES),
            os.urandom(SEALING_SECRET_BYTES),
            os.urandom(_X25519_BYTES),
        )

    @property
    def public(self) -> PublicKeys:
        """The public half."""
        return PublicKeys(
            self.name,
            Ed25519PrivateKey.from_private_bytes(self.signing).public_key().public_bytes_raw(),
            public_sealing(self.sealing),
            X25519PrivateKey.from_private_bytes(self.transport).public_key().public_bytes_raw(),
        )

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature over `message`, 64 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.signing).sign(message)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """The secret that was sealed to this party under `context`; SignatureError if it was not."""
        for secret in (self.round_sealing, self.sealing):
            if secret is not None:
                with suppress(InvalidTag):
                    return _SUITE.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(*_sealing_pair(secret)), info=context)
        raise SignatureError(
            f"a seal does not open with the key of {self.name}",
            hint="it was made for another key, site or round, or was changed on the way",
        )


SEALING_SECRET_BYTES = _MLKEM_SEED_BYTES + _X25519_BYTES


def public_sealing(secret: bytes) -> bytes:
    """The public half (1,216 bytes) of a secret sealing key of SEALING_SECRET_BYTES."""
    mlkem, x25519 = _sealing_pair(secret)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def _sealing_pair(secret: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    return (
        MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED_BYTES:]),
    )


def check_name(name: str, what: str = "a site") -> None:
    """Raises UsageError unless `name`, that of `what`, can stand in a roster and in file names everywhere."""
    if not _NAME.fullmatch(name):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        proposal = re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "").replace(".", "")).strip("-")[:32].strip("-")
        example = f": {proposal}, for example" if proposal else ""
        raise UsageError(
            f"{name!r} is no name for {what}",
            hint=f"1 to 32 of a-z, 0-9 and '-', beginning and ending with a letter or a digit{example}",
        )


def encrypt_with(key: bytes, message: bytes, context: bytes) -> bytes:
    """AES-256-GCM under a key that is used for this one message only (hence a nonce of zeros)."""
    return AESGCM(key).encrypt(bytes(_NONCE_BYTES), message, context)


def decrypt_with(key: bytes, encrypted: bytes, context: bytes) -> bytes:
    """The message of `encrypt_with`; SignatureError if key, context or content are not those."""
    try:
        return AESGCM(key).decrypt(bytes(_NONCE_BYTES), encrypted, context)
    except InvalidTag:
        raise SignatureError(
            "a sealed partial decryption does not open",
            hint="it was altered in transit; ask its sender for a fresh copy",
        ) from None


def stretch(passphrase: str, salt: bytes, cost: int) -> bytes:
    """A key of 32 bytes from a passphrase by scrypt with n = `cost`, r = 8, p = 1, in 1,024 x `cost` bytes."""
    return Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(passphrase.encode())


def encrypt_stream(key: bytes, blocks: Iterable[bytes], context: bytes) -> Iterator[bytes]:
    """AES-256-GCM block by block, for what does not fit in memory, under a key that is used for this stream only.

    A block's nonce is its number and whether it is the last (the STREAM construction of Hoang, Reyhanitabar,
    Rogaway and Vizar, CRYPTO 2015), so blocks can be neither exchanged nor cut off.
    """
    cipher = AESGCM(key)
    for nonce, block in _numbered(blocks):
        yield cipher.encrypt(nonce, block, context)


def decrypt_stream(key: bytes, blocks: Iterable[bytes], context: bytes) -> Iterator[bytes]:
    """The blocks of `encrypt_stream`, each AUTHENTICATION_BYTES shorter; SignatureError at one that was changed."""
    cipher = AESGCM(key)
    for nonce, block in _numbered(blocks):
        try:
            yield cipher.decrypt(nonce, block, context)
        except InvalidTag:
            raise SignatureError(
                "a sealed file does not open", hint="it was altered in transit; ask its sender for a fresh copy"
            ) from None


def _numbered(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Blocks with their nonces: eleven bytes of their number, and one that marks the last."""
    number, held = 0, None
    for block in blocks:
        if held is not None:
            yield number.to_bytes(_NONCE_BYTES - 1, "big") + b"\0", held
            number += 1
        held = block
    if held is not None:
        yield number.to_bytes(_NONCE_BYTES - 1, "big") + b"\1", held
