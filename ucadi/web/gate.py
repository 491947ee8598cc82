"""Who may ask, and from where: an ASGI layer around the whole page.

Host: only names that the page is known by, against DNS rebinding. Origin and Sec-Fetch-Site: no other site may have
a visitor's browser ask for anything but the page itself. Then a token, in a header or a cookie; a user's name from
the proxy in front; both; or, on loopback, nothing. Every answer bears the security headers.

Source: RFC 6454 (Origin), RFC 6750 (bearer tokens), W3C Fetch Metadata, W3C Content Security Policy 3.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ucadi.events import Events

COOKIE = "ucadi"

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""data: is for the pictures that the viewer carries in itself: its font. No text becomes code or markup."""

DOCUMENT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""Of reports, which are files: they bring their style and pictures, and can do nothing."""

_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send a form's Origin as null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow",
}

_OPEN = ("/sign-in", "/static/")
"""What needs no token: the form that takes one, and the page's own code, which is public."""


@dataclass(frozen=True)
class Access:
    """What the gate asks for. hosts: names with port. user_header: where the proxy names the user, in lower case."""

    hosts: frozenset[str]
    token: str | None = None
    user_header: str | None = None

    @property
    def cookie(self) -> str:
        """What a browser that knows the token shows instead of it; it does not tell the token."""
        return hmac.new((self.token or "").encode(), b"ucadi diagnosis page", hashlib.sha256).hexdigest()

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return self.token is not None and hmac.compare_digest(token.encode(), self.token.encode())

    def admits(self, headers: Headers) -> bool:
        """Whether a request bears what is asked for."""
        if self.user_header is not None and (len(users := headers.getlist(self.user_header)) != 1 or not users[0]):
            return False  # two: the proxy has added to what a client sent
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.knows(given.strip()):
            return True
        return hmac.compare_digest(_cookie(headers).encode(), self.cookie.encode())


class Gate:
    """Lets through what may pass, with the owner of what it asks for in `scope["owner"]`.

    A bug beyond it is answered and told by its kind alone: what an exception says may quote the request.
    """

    def __init__(self, app: ASGIApp, access: Access, tell: Events) -> None:
        self._app = app
        self._access = access
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no WebSockets here

        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                if scope["path"].startswith("/static/"):
                    headers.setdefault("cache-control", "no-cache")  # kept, but asked about each time
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        scope["owner"] = headers.get(self._access.user_header, "") if self._access.user_header else ""
        try:
            await self._app(scope, receive, send_guarded)
        except Exception as error:
            self._tell("bug", {"kind": type(error).__name__})
            if not begun:
                await _error(500, "the server failed", "please report it")(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._access.hosts:
            return _error(421, "this server does not go by that name", "ucadi serve --host-name NAME")
        method, path = scope["method"], scope["path"]
        reads = method in ("GET", "HEAD")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
            return _error(403, "asked by another site")
        arrives = reads and headers.get("sec-fetch-mode") == "navigate" and path in ("/", "/sign-in")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not arrives:
            return _error(403, "asked by another site")
        if path.startswith(_OPEN) or self._access.admits(headers):
            return None
        if self._access.token is not None and reads and path == "/":
            return RedirectResponse("/sign-in", status_code=303)
        refused = _error(401, "not signed in", "send the token: Authorization: Bearer TOKEN")
        refused.headers["www-authenticate"] = "Bearer"
        return refused


def _cookie(headers: Headers) -> str:
    try:
        held = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return held[COOKIE].value if COOKIE in held else ""


def _error(status: int, error: str, hint: str = "") -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint}, status)
