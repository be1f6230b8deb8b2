"""Files that a batch found: to read, or skipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agsr.store.address import Location
from agsr.video.formats import SEGMENTS_ENDING


@dataclass(frozen=True, slots=True)
class Input:
    """A file to read, or a problem that prevents it."""

    path: Location
    below: Path | None = None
    """Subfolder relative to the folder that was searched; None for a file that was named."""
    problem: str | None = None
    """Why it can't be read."""
    is_request: bool = False
    """Whether the problem is in the request, not in the file."""


class Skipped(NamedTuple):
    """A file that is skipped."""

    path: Location
    reason: str
    named: bool
    """Whether it was named, rather than found in a folder or by a pattern."""
    linked: bool = False
    """Whether it links to another input."""


def is_ignored_folder(name: str) -> bool:
    """Return True for hidden folders, and those of the segments of an interrupted video.

    >>> is_ignored_folder(".thumbnails"), is_ignored_folder("2026")
    (True, False)
    """
    return name.startswith(".") or name.endswith(SEGMENTS_ENDING)
