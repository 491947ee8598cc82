"""Where an archive is, and who asks."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ucadi.errors import FormatError, UsageError
from ucadi.files import read_secret

USER, PASSWORD, TOKEN = "UCADI_PACS_USER", "UCADI_PACS_PASSWORD", "UCADI_PACS_TOKEN"
"""Variables of the environment that credentials are taken from."""

AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""PS3.5 6.2, AE."""


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a token; neither is ever printed."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.user or self.token)


@dataclass(frozen=True)
class Web:
    """A DICOMweb service: the address that /studies follows."""

    url: str


@dataclass(frozen=True)
class Node:
    """An archive that speaks the DICOM protocol: its host, port and application entity."""

    host: str
    port: int
    title: str


def parse(url: str) -> Web | Node:
    """http://HOST/PATH, https://HOST/PATH or dicom://TITLE@HOST:PORT. Raises UsageError for anything else."""
    hint = "https://pacs.example.org/dicom-web, or dicom://TITLE@pacs.example.org:104"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError("the archive's address is malformed", hint=hint) from None
    if parts.scheme in ("http", "https") and parts.hostname:
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                "credentials in the archive's address, where others on this machine can read them",
                hint=f"set {USER} and {PASSWORD}, or use --credentials FILE",
            )
        if parts.query or parts.fragment:
            raise UsageError(f"{url}: a service's address has no ? and no #", hint=hint)
        return Web(url.rstrip("/"))
    if parts.scheme == "dicom" and parts.hostname and parts.username and port and parts.password is None:
        if not AE_TITLE.fullmatch(parts.username) or parts.path not in ("", "/"):
            raise UsageError(f"{url}: no title of an application entity before the @", hint=hint)
        return Node(parts.hostname, port, parts.username)
    raise UsageError(f"{url}: not the address of an archive", hint=hint)


_CREDENTIALS = "a file of USER:PASSWORD or of Bearer TOKEN"


def read_credentials(path: Path | None) -> Credentials:
    """From a file of one line, USER:PASSWORD or `Bearer TOKEN`, or else from the environment.

    Raises FormatError for a file that is neither, SignatureError for one that others can read.
    """
    if path is None:
        given = (os.environ.get(name, "") for name in (USER, PASSWORD, TOKEN))
        return Credentials(*given)
    text = read_secret(path, "file of credentials", _CREDENTIALS)
    kind, _, token = text.partition(" ")
    if kind.lower() == "bearer" and token and "\n" not in text:
        return Credentials(token=token.strip())
    user, colon, password = text.partition(":")
    if not (user and colon and password) or "\n" in text or text[0] in "{[":  # JSON or INI, not a user's name
        raise FormatError(f"{path.name}: not one line of USER:PASSWORD or of Bearer TOKEN")
    return Credentials(user, password)


def check_secrecy(web: Web, credentials: Credentials) -> None:
    """Raises UsageError where credentials would cross a network in the clear."""
    parts = urlsplit(web.url)
    if credentials and parts.scheme == "http" and not _is_here(parts.hostname or ""):
        raise UsageError(f"{web.url}: credentials would cross the network in the clear", hint="use https")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
