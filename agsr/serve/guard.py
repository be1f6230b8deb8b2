"""What every request passes: Host, Origin, token, limits of the body, headers of the answer.

An ASGI middleware around all routes. `agsr.serve.uploads.limited` limits the body.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agsr.serve.metrics import Metrics
from agsr.serve.pages import PAGE
from agsr.serve.problems import Problem
from agsr.serve.settings import LOCAL, ServeSettings
from agsr.serve.uploads import limited

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""``Content-Security-Policy`` of all answers; an API answer that is opened is inert, too."""

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_EVERY = ("0.0.0.0", "::", "")
HEADER_BYTES = 16_384
"""Longest header of a request."""

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", *PAGE})
"""Addresses that need no token; every other one does."""


class Guard:
    """Checks requests before any route sees them.

    Args:
        app: The routes.
        settings: Names, origins, token and limits.
        metrics: Counts the answers.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._names = frozenset(_names(settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and answer it or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.request(scope["method"], route, message["status"])
            await send(message)

        try:
            self._check(scope)
            body = limited(scope, receive, self._settings)
        except Problem as problem:
            await problem.response()(scope, receive, send_with_headers)
            return
        await self._app(scope, body, send_with_headers)

    def _check(self, scope: Scope) -> None:
        _check_length(scope)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        match = _HOST.fullmatch(host)
        name = match[1].strip("[]").lower().rstrip(".") if match else ""
        if not self._is_ours(name):
            raise Problem(
                421, "unknown_host", "this server has no such name; --allow-host NAME adds one"
            )
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._check_origin(headers, host)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._settings.token is not None and path not in OPEN:
            self._check_token(headers)

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        return self._settings.host in _EVERY and _is_address(name)  # rebinding needs a name

    def _check_origin(self, headers: Headers, host: str) -> None:
        """Reject what another page's script or form sends; browsers name the page."""
        origin = headers.get("origin")
        if origin is None or origin in self._settings.allow_origins:
            return
        if origin.partition("://")[2].lower() != host.lower():
            raise Problem(
                403, "foreign_origin", "another page sent this; --allow-origin ORIGIN permits it"
            )

    def _check_token(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = (self._settings.token or "").encode()
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), expected)
        if scheme.lower() != "bearer" or not same:
            raise Problem(
                401,
                "wrong_token",
                "this server needs its token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )


def _check_length(scope: Scope) -> None:
    """Reject a long header: parsers limit what is incomplete, not what comes in one piece."""
    length = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    length += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if length > HEADER_BYTES:
        raise Problem(
            431, "header_too_large", f"the header has {length} bytes; at most {HEADER_BYTES}"
        )


def _names(settings: ServeSettings) -> Iterable[str]:
    yield from LOCAL
    yield from (name.lower().strip("[]") for name in settings.allow_hosts)
    yield (socket.gethostname() if settings.host in _EVERY else settings.host).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
