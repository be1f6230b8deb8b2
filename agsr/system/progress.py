"""How long work reports its progress: one pair of callbacks for tiles, files, frames and fetches.

A single image reports its completed share to a `ShareCallback`; a sequence of files, frames or
downloads reports `Progress` to a `ProgressCallback`, and `within` joins the two. The build of a
TensorRT engine has another one, since it can be cancelled (`agsr.engines.tensorrt.progress`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "ProgressCallback", "ShareCallback", "within"]


@dataclass(frozen=True)
class Progress:
    """Completed part of a sequence.

    >>> Progress(1.5, 4).done
    1.5
    """

    done: float
    """Completed items plus the share of the current one."""
    total: int | None
    """Number of items; None if unknown."""
    reused: int = 0
    """Items of ``done`` that an earlier run completed."""


ShareCallback = Callable[[float], None]
"""Called with the completed share of one item, 0 to 1."""

ProgressCallback = Callable[[Progress], None]
"""Called with the completed part of a sequence."""


def within(
    progress: ProgressCallback, total: int | None, done: int, reused: int = 0
) -> ShareCallback:
    """Return a callback that adds the share of the current item to a sequence's progress.

    >>> within(print, total=4, done=1)(0.5)
    Progress(done=1.5, total=4, reused=0)
    """
    return lambda share: progress(Progress(done + share, total, reused))
