"""What is known of other projects' weights: name, author and licence, by the SHA-256 of the file.

``licences.json`` holds facts only: an entry is added by whoever has the file and its published
licence at hand, with the SHA-256 of the file as published. An author or licence that isn't
published is left empty.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("licences.json")

_log = logging.getLogger(__name__)

_NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


@dataclass(frozen=True)
class Provenance:
    """Where weights come from."""

    name: str
    """Name under which they are published."""
    author: str = ""
    """Who made them; empty if that isn't known."""
    licence: str = ""
    """SPDX identifier or name of the licence; empty if there is none."""

    @property
    def is_non_commercial(self) -> bool:
        """Whether the licence forbids commercial use.

        >>> Provenance("a", licence="CC-BY-NC-SA-4.0").is_non_commercial
        True
        """
        return _NON_COMMERCIAL.search(self.licence) is not None


def provenance(sha256: str) -> Provenance | None:
    """Return what is known of a file; None if nothing is.

    >>> provenance("0" * 64) is None
    True
    """
    entry = _entries().get(sha256)
    return None if entry is None else Provenance(**entry)


def note_licence(sha256: str, source: str) -> None:
    """Log a warning for a licence that forbids commercial use, and a note for an unknown one."""
    known = provenance(sha256)
    if known is None or not known.licence:
        _log.info("%s: its licence is unknown; see where it comes from before you publish", source)
    elif known.is_non_commercial:
        _log.warning("%s: its licence, %s, forbids commercial use", source, known.licence)


@cache
def _entries() -> dict[str, dict[str, str]]:
    entries: dict[str, dict[str, str]] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return entries
