"""Shards: deal the files of a batch to several machines that run the same command.

A file's shard depends on its name only, not on the other files. So every file belongs to exactly
one shard, although machines list the folder at different times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath
from unicodedata import normalize

from agsr.errors import RequestError

INDICES = ("JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID")
"""Variables in which Kubernetes indexed jobs, AWS Batch and SLURM name the index of a task."""

_COUNTS = ("AWS_BATCH_JOB_ARRAY_SIZE", "SLURM_ARRAY_TASK_COUNT")
_SLURM = "SLURM_ARRAY_TASK_"

_FORM = re.compile(r"(?:([0-9]{1,9}|auto)/([0-9]{1,9}))|auto")
_EXPECTED = "expected INDEX/COUNT from 0/COUNT, auto/COUNT, or auto"


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a batch.

    >>> parts = [Shard(index, 3) for index in range(3)]
    >>> [part.contains(PurePath("album/a.jpg")) for part in parts].count(True)
    1
    """

    index: int
    """From 0."""
    count: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """Parse ``INDEX/COUNT``; ``auto`` reads one or both from a cluster's variables.

        >>> Shard.parse("2/8"), Shard.parse("auto/8", {"JOB_COMPLETION_INDEX": "3"})
        (Shard(index=2, count=8), Shard(index=3, count=8))

        Args:
            text: ``INDEX/COUNT``, ``auto/COUNT`` or ``auto``.
            environment: Variables of the process.

        Raises:
            RequestError: The text has another form, the index is out of range, or no variable has
                what ``auto`` asks for.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise RequestError(f"shard is '{text}'; {_EXPECTED}")
        index, count = match.groups()
        number = int(count) if count else _number(_COUNTS, "count", environment)
        if index not in (None, "auto"):
            position = int(index)
        elif count is None and environment.get(f"{_SLURM}COUNT"):
            position = _position_in_array(number, environment)
        else:
            position = _number(INDICES, "index", environment)
        if not 0 <= position < number:
            raise RequestError(
                f"shard {position} of {number} is out of range; {number} shards are "
                f"0/{number} to {number - 1}/{number}"
                if number
                else f"shard is '{text}': a count of 0; {_EXPECTED}"
            )
        return cls(position, number)

    def contains(self, name: PurePath) -> bool:
        """Return True if a file belongs to this shard.

        Args:
            name: The file's path below the folder that was searched, or its name alone.
        """
        # One spelling of accents: file systems disagree.
        content = os.fsencode(normalize("NFC", name.as_posix()))
        place = int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
        return place % self.count == self.index


def _number(variables: tuple[str, ...], what: str, environment: Mapping[str, str]) -> int:
    """Return the number of the first variable that is set."""
    found = next((name for name in variables if environment.get(name)), None)
    if found is None:
        raise RequestError(
            f"no {what} for shard 'auto': none of {', '.join(variables)} is set; {_EXPECTED}"
        )
    try:
        return int(environment[found])
    except ValueError:
        raise RequestError(
            f"no {what} for shard 'auto': {found} is '{environment[found]}'; expected a number"
        ) from None


def _position_in_array(count: int, environment: Mapping[str, str]) -> int:
    """Return the position of a SLURM task in its array, which may start anywhere, with any step."""
    names = ("ID", "MIN", "MAX")
    this, first, last = (_number((f"{_SLURM}{n}",), "index", environment) for n in names)
    step = (last - first) // max(count - 1, 1) or 1
    if last - first != (count - 1) * step or (this - first) % step:
        raise RequestError(
            f"shard 'auto': {count} tasks from {first} to {last} are not the whole of an array; "
            "to repeat single tasks, name the count, like auto/8"
        )
    return (this - first) // step
