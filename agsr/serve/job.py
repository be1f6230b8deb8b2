"""One upscaling: its files, its state, what its clients see. `agsr.serve.board` runs them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from agsr.pretrained import WEIGHTS_FOR_FAULTS
from agsr.serve.advice import for_clients
from agsr.serve.options import MEDIA_TYPES, RequestOptions
from agsr.serve.problems import Problem
from agsr.system.time_left import TimeLeft

MAX_WARNINGS = 20
"""Warnings of a job that are reported; the others are dropped."""


class State(str, Enum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (State.QUEUED, State.RUNNING)


class StoppedError(Exception):
    """A client cancelled the job; raised by its progress."""


@dataclass(frozen=True)
class Hint:
    """Advice on an input: other weights were trained on such pictures.

    >>> Hint("cat.mp4", "psnr").text
    'cat.mp4 has traces of compression, which psnr enlarges, too; weights=photo was trained to ...'
    """

    name: str
    used: str
    """Public name of the weights that the request uses."""
    degree: str = ""
    """Kind and strength of the compression; empty for videos."""
    weights: str = WEIGHTS_FOR_FAULTS
    """Those that suit it better."""

    @property
    def text(self) -> str:
        """What people read; the note of ``agsr infer`` in the terms of requests."""
        degree = f" ({self.degree})" if self.degree else ""
        return (
            f"{self.name} has traces of compression{degree}, which {self.used} enlarges, too; "
            f"weights={self.weights} was trained to remove them"
        )

    @property
    def content(self) -> dict[str, str]:
        """The JSON document."""
        return {"code": "compressed", "weights": self.weights, "text": self.text}


@dataclass(eq=False)
class Job:
    """A file to upscale. Workers set share, hint and warnings, the event loop the rest."""

    id: str
    options: RequestOptions
    folder: Path
    """Private folder of the job; removed with it."""
    source: Path
    target: Path
    extension: str
    """Of the result, with the dot."""
    size: tuple[int, int] | None = None
    """Height and width of the input by its header; None if unknown."""
    is_video: bool = False
    is_kept: bool = True
    """Whether the result is kept for later requests."""
    state: State = State.QUEUED
    share: float = 0.0
    """Completed share of the work, 0 to 1."""
    warnings: list[str] = field(default_factory=list)
    hint: Hint | None = None
    """Weights that would suit the input better; None if there are none."""
    problem: Problem | None = None
    result_size: tuple[int, int] | None = None
    bytes: int = 0
    """Of its files on the disk."""
    created: float = field(default_factory=time.time)
    expires: float | None = None
    """Seconds since 1970; None while it is not finished."""
    fetched: bool = False
    """Whether the result was sent completely, or is no longer wanted."""
    settled: bool = False
    """Whether its worker is free, and its files are those that are kept."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the work is no longer wanted."""
    left: TimeLeft | None = None

    @property
    def name(self) -> str:
        """Name of the input, as the client gave it."""
        return self.options.name or f"upload{self.source.suffix}"

    @property
    def result_name(self) -> str:
        """File name of the result: the input's, with the size as a suffix."""
        stem = self.options.name.rpartition(".")[0] or self.options.name or "upload"
        return f"{stem}{self.options.sizing.suffix}{self.extension}"

    @property
    def media_type(self) -> str:
        """Media type of the result."""
        return MEDIA_TYPES.get(self.extension, "application/octet-stream")

    def progress(self, share: float) -> None:
        """Take in how much is done; called by workers.

        Raises:
            StoppedError: The work is no longer wanted.
        """
        if self.stop.is_set():
            raise StoppedError
        self.share = min(max(share, 0.0), 1.0)
        if self.left is not None:
            self.left.update(self.share)

    def plain(self, message: str) -> str:
        """Return a message of the engines as clients may see it."""
        names = {
            str(self.source): self.name,
            str(self.target): self.result_name,
            str(self.folder): "",
        }
        return for_clients(message, names)

    def described(self, position: int | None, base: str) -> dict[str, Any]:
        """Return what clients see.

        Args:
            position: In the queue, from 1; None if it does not wait.
            base: Path of the API's jobs, for links.
        """
        height, width = self.size or (None, None)
        document: dict[str, Any] = {
            "id": self.id,
            "state": self.state.value,
            "progress": round(self.share, 4),
            "seconds_left": self._seconds_left(),
            "position": position,
            "created": _timestamp(self.created),
            "expires": None if self.expires is None else _timestamp(self.expires),
            "input": {"name": self.name, "width": width, "height": height},
            "warnings": self.warnings[:MAX_WARNINGS],
            "hint": None if self.hint is None else self.hint.content,
            "problem": None if self.problem is None else self.problem.content,
            "result": None,
            "links": {"self": f"{base}/{self.id}", "events": f"{base}/{self.id}/events"},
        }
        if self.state is State.DONE and self.result_size:
            height, width = self.result_size
            document["links"]["result"] = f"{base}/{self.id}/result"
            document["result"] = {
                "name": self.result_name,
                "type": self.media_type,
                "bytes": self.target.stat().st_size,
                "width": width,
                "height": height,
            }
        return document

    def _seconds_left(self) -> float | None:
        if self.state is not State.RUNNING or self.left is None or self.left.seconds is None:
            return None
        return round(self.left.seconds, 1)


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
