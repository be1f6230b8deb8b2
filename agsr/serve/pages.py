"""The page and its files, from the package's data: read once, compressed, cached by browsers."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.css": ("app.css", "text/css; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "api.js": ("api.js", "text/javascript; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Name and media type by address."""

PAGE = frozenset(f"/{address}" for address in _FILES)
"""Addresses of the page and its files."""

Endpoint = Callable[[Request], Awaitable[Response]]


def page_routes() -> list[Route]:
    """Return the routes of the page; their addresses are relative, for proxies."""
    return [Route(f"/{address}", _endpoint(*file)) for address, file in _FILES.items()]


def _endpoint(name: str, media_type: str) -> Endpoint:
    content = (files("agsr.serve") / "page" / name).read_bytes()
    small = gzip.compress(content, mtime=0)
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}

    async def page(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            zipped = headers | {"Content-Encoding": "gzip"}
            return Response(small, headers=zipped, media_type=media_type)
        return Response(content, headers=headers, media_type=media_type)

    return page
