"""Answers with a result's file, and events of a job as text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from agsr.serve.job import MAX_WARNINGS, Job
from agsr.serve.metrics import Metrics
from agsr.serve.problems import Problem


class ResultResponse(FileResponse):
    """A finished job's file, with ranges; warnings are in ``Agsr-Warning``, one per message, and
    a hint in ``Agsr-Hint``.

    Args:
        job: Done.
        metrics: Counts the seconds.
        afterwards: Called when the answer is complete, or the client has gone.
    """

    chunk_size = 1 << 20
    """Bytes that are read at once; each read is a visit to another thread."""

    def __init__(
        self, job: Job, metrics: Metrics, afterwards: Callable[[], object] = lambda: None
    ) -> None:
        headers = {"Cache-Control": "no-store", "Content-Disposition": disposition(job.result_name)}
        super().__init__(job.target, headers=headers, media_type=job.media_type)
        for warning in job.warnings[:MAX_WARNINGS]:
            self.headers.append("Agsr-Warning", header_text(warning))
        if job.hint is not None:
            self.headers["Agsr-Hint"] = header_text(job.hint.text)
        self._job, self._metrics, self._afterwards = job, metrics, afterwards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        began = time.monotonic()

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                raise _RangeError
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._job.fetched = True

        try:
            await super().__call__(scope, receive, noting_send)
            self._metrics.seconds("send", time.monotonic() - began)
        except _RangeError:
            size = self._job.target.stat().st_size
            raise Problem(
                416,
                "bad_range",
                f"expected a range of bytes within 0-{size - 1}",
                {"Content-Range": f"bytes */{size}"},
            ) from None
        finally:
            self._afterwards()


class _RangeError(Exception):
    """The range of a request can't be satisfied."""


def disposition(name: str) -> str:
    """Return a ``Content-Disposition`` with a file name (RFC 6266).

    >>> disposition('caf\u00e9 "1".png')
    'inline; filename="caf_ _1_.png"; filename*=UTF-8\\'\\'caf%C3%A9%20%221%22.png'
    """
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    encoded = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'inline; filename="{plain}"{encoded}'


def header_text(text: str) -> str:
    """Return text for a header, in which only ASCII may stand.

    >>> header_text("×4: caf\u00e9")
    'x4: caf\\\\xe9'
    """
    return text.replace("×", "x").encode("ascii", "backslashreplace").decode("ascii")


def event_text(document: Mapping[str, Any]) -> str:
    """Return a job's state as a server-sent event, named after the state."""
    return f"event: {document['state']}\ndata: {json.dumps(document)}\n\n"
