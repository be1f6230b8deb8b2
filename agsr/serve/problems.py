"""Errors as ``application/problem+json`` (RFC 9457): from exceptions to answers without paths.

`Problem` is raised by the modules here; `problem_of` translates the errors of the engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from agsr.errors import (
    BackendError,
    ImageError,
    LimitError,
    MissingDependencyError,
    RequestError,
    ServerError,
    VideoError,
)

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (LimitError, 413, "too_large"),
    (RequestError, 400, "bad_option"),
    (ImageError, 422, "unusable_file"),
    (VideoError, 422, "unusable_file"),
    (MissingDependencyError, 415, "not_installed"),
    (MemoryError, 503, "out_of_memory"),
    (ServerError, 502, "server_unreachable"),
    (BackendError, 500, "backend_failed"),
)
"""Status and code of each kind of error; the first that fits counts."""

_AWAY = "the server that computes can't be reached, or doesn't answer; try again later"
"""Instead of a `ServerError`'s message, which has the server's address."""


class Problem(Exception):  # noqa: N818  # an answer as RFC 9457 names it
    """An answer that reports an error.

    >>> problem = Problem(413, "too_large", "9 bytes; at most 4")
    >>> problem.content["title"], problem.content["code"]
    ('Content Too Large', 'too_large')

    Args:
        status: HTTP status.
        code: For programs; stable, unlike the text.
        detail: For people: what was found, what was expected, what to do.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {"Cache-Control": "no-store", **self.headers}
        return JSONResponse(self.content, self.status, headers, MEDIA_TYPE)


_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Where the names of Python's versions differ."""


def problem_of(kind: type[Exception], message: str) -> Problem:
    """Return the problem for an error of the engines.

    Args:
        kind: Class of the error.
        message: Its message, without paths.
    """
    for known, status, code in _STATUS:
        if issubclass(kind, known):
            return Problem(status, code, _AWAY if known is ServerError else message)
    return Problem(500, "internal", "the server failed on this file; its log has the reason")
