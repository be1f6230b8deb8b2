"""Estimate of the time left, for progress bars on terminals and for clients of the server."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeLeft:
    """Estimate of the time left: by the work done since the beginning, counting down in between.

    Args:
        total: Of the work, in any unit, like pixels.
        clock: Seconds.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._began = clock()
        self._end: float | None = None

    def update(self, done: float) -> None:
        """Take in how much is done by now."""
        now = self._clock()
        if done > 0:
            self._end = now + (now - self._began) * max(self._total - done, 0) / done

    @property
    def seconds(self) -> float | None:
        """Seconds until the end; None before anything is done."""
        return None if self._end is None else max(self._end - self._clock(), 0.0)
