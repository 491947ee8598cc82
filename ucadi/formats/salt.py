"""The salt: a site's secret file, from which the ids of cases and patients are derived. See docs/formats/dataset.md."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ucadi import filetypes
from ucadi.errors import FormatError
from ucadi.files import check_secret, claim_file, read_bytes

MIN_SALT_BYTES = 16
MAX_SALT_BYTES = 1 << 20


def read_or_make(path: Path) -> bytes:
    """The site's secret, made and kept readable by its owner only if it does not exist yet."""
    if not os.path.lexists(path):
        claim_file(path, secrets.token_bytes(32))
    check_secret(path, "salt")
    secret = read_bytes(path, MAX_SALT_BYTES, words="a salt (a file of at least 16 secret bytes)")
    what = filetypes.describe(path)
    if filetypes.is_ours(what):
        raise FormatError(
            f"{path.name} is {what}, not a salt", hint="--salt names a file of secret bytes, or a new one"
        )
    if len(secret) < MIN_SALT_BYTES:
        raise FormatError(
            f"{path}: {len(secret)} bytes are too few", hint=f"(umask 077; head -c 32 /dev/urandom > {path})"
        )
    return secret


def pseudonym(secret: bytes, kind: str, name: str) -> str:
    """The id that stands for a case or a patient: 16 hex digits of HMAC-SHA-256 with the site's secret."""
    return hmac.new(secret, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:16]
