"""The manifest of a batch: a row per file, as JSON lines beside the results.

Rows are written in parts, since objects of a store can't be extended; a part appears when it is
complete. So memory doesn't grow with the batch, and a run that is killed loses its last rows only:
on the next run, their files are ``existing``.
"""

from __future__ import annotations

import errno
import json
import logging
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timezone

from agsr.engines.batch.outcome import Outcome
from agsr.engines.batch.plan import Job
from agsr.errors import ImageError
from agsr.store.address import Location
from agsr.store.locations import check_writable, complete

FOLDER = "agsr-manifest"
"""Name of the folder beside the results."""

ROWS = 10_000
"""Most rows of a part."""

SECONDS = 60.0
"""Least time between two parts, unless a part is full."""

_log = logging.getLogger(__name__)


class Manifest:
    """Writes rows of source, target, status, seconds, pixels, bytes and error.

    Args:
        folder: For the parts; made if needed.
        clock: Seconds.

    Raises:
        ImageError: The parts can't be written.
    """

    def __init__(self, folder: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        start = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        self._run = f"{start}-{secrets.token_hex(4)}"
        self._rows: list[str] = []
        self._parts = 0
        self._written = clock()
        try:
            check_writable(folder / f"{self._run}.jsonl")
        except OSError as error:
            raise ImageError(f"{folder}: can't be written: {_reason(error)}") from None

    def add(self, outcome: Outcome) -> None:
        """Add the row of an outcome.

        Raises:
            ImageError: A part can't be written.
        """
        size = outcome.size
        self._add(
            outcome.job,
            "done" if outcome.error is None else "failed",
            seconds=None if outcome.seconds is None else round(outcome.seconds, 3),
            pixels=None if size is None else size[0] * size[1],
            bytes=outcome.nbytes,
            error=outcome.error,
        )

    def add_existing(self, job: Job) -> None:
        """Add the row of a job whose result is there already."""
        self._add(job, "existing")

    def add_problem(self, job: Job, problem: str, *, has_target: bool = True) -> None:
        """Add the row of a job that can't be done.

        Args:
            job: The job.
            problem: Why it can't be done.
            has_target: Whether the name of its result is known; otherwise the target is null.
        """
        unknown = {} if has_target else {"target": None}
        self._add(job, "failed", error=problem, **unknown)

    def _add(self, job: Job, status: str, **facts: object) -> None:
        names = ("seconds", "pixels", "bytes", "error")
        row: dict[str, object] = {"source": str(job.source), "target": str(job.target)}
        row |= {"status": status, **dict.fromkeys(names), **facts}
        self._rows.append(json.dumps(row, ensure_ascii=False))
        late = self._clock() - self._written >= SECONDS
        if len(self._rows) >= ROWS or late:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not written yet.

        Raises:
            ImageError: They can't be written.
        """
        if not self._rows:
            return
        part = self._folder / f"{self._run}-{self._parts:05}.jsonl"
        content = "".join(f"{row}\n" for row in self._rows)
        try:
            with complete(part) as temporary:
                temporary.write_text(content, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise ImageError(f"{part}: can't be written: {_reason(error)}") from None
        self._rows, self._parts, self._written = [], self._parts + 1, self._clock()


def _reason(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, "")
