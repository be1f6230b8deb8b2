"""The finished parts of a video, stored beside the result until it is complete.

Each part is a file named by the frames in it, which appears under that name only when complete.
Computed frames of the next part lie beside them (`agsr.engines.video.spool`). What all were made
of, and how, is recorded: parts of anything else are removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.engines.video.spool import NAME, count_frames, read_frames_of, remove_frames
from agsr.errors import VideoError
from agsr.system.atomic_file import complete_file
from agsr.system.destination import check_links
from agsr.system.optional_import import require
from agsr.video.formats import SEGMENTS_ENDING
from agsr.video.mux import SEGMENT_FORMATS

if TYPE_CHECKING:
    from av import VideoFrame

LENGTH = 48
"""Frames of a segment but the last."""

_ATTEMPTS = 20
"""Attempts to lock a folder that other processes remove meanwhile."""

_NAME = re.compile(rf"frames-(\d+)-(\d+)\.({'|'.join(SEGMENT_FORMATS)})")

_log = logging.getLogger(__name__)


class Segments:
    """The folder of one result. Made by `open_segments`."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self._form = folder, form
        self.done: dict[int, int] = {}
        """Numbers of frames, by the first frame."""
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                first, last = int(match[1]), int(match[2])
                self.done[first] = last + 1 - first
            elif path.suffix == ".part":
                path.unlink()
        self.computed = self._usable()
        """Numbers of computed frames that are in no segment yet, by the first frame."""

    @property
    def unfinished(self) -> Path:
        """Where the segment lies that is written now."""
        return self.folder / "unfinished.part"

    def complete(self, first: int, count: int) -> None:
        """Give the written segment its name; from now on it is kept."""
        with self.unfinished.open("r+b") as file:
            os.fsync(file.fileno())
        self.unfinished.replace(self._path(first, count))
        self.done[first] = count
        for path in _computed(self.folder):
            remove_frames(path)

    def computed_frames(self) -> Iterator[VideoFrame]:
        """All computed frames that are in no segment yet."""
        for first, count in sorted(self.computed.items()):
            yield from islice(read_frames_of(self.folder / f"computed-{first:08}.nut"), count)

    def is_computed(self, number: int) -> bool:
        """Return True if a frame is computed, but in no segment yet."""
        return any(first <= number < first + count for first, count in self.computed.items())

    def _usable(self) -> dict[int, int]:
        """The files of computed frames that continue the segments without a gap."""
        found = {int(NAME.fullmatch(p.name)[1]): p for p in _computed(self.folder)}  # type: ignore[index]
        number = 0
        while number in self.done:
            number += self.done[number]
        usable: dict[int, int] = {}
        while number in found and (count := count_frames(found[number])):
            del found[number]
            usable[number] = count
            number += count
        for path in found.values():
            remove_frames(path)
        return usable

    def remove(self, path: Path) -> None:
        """Remove a segment that turned out to be damaged."""
        path.unlink(missing_ok=True)

    def in_order(self, frames: int) -> list[tuple[Path, int]]:
        """All segments of a video of so many frames.

        Raises:
            VideoError: They do not cover it; they were made of something else.
        """
        ordered = sorted(self.done.items())
        expected = 0
        for first, count in ordered:
            if first != expected:
                break
            expected += count
        if expected != frames or sum(self.done.values()) != frames:
            raise VideoError(f"{self.folder}: not the segments of {frames} frames; remove it")
        return [(self._path(first, count), count) for first, count in ordered]

    def _path(self, first: int, count: int) -> Path:
        return self.folder / f"frames-{first:08}-{first + count - 1:08}.{self._form}"


@contextmanager
def open_segments(target: Path, identity: Mapping[str, Any], form: str) -> Iterator[Segments]:
    """The folder of segments beside a result, for one process at a time.

    Args:
        target: The result.
        identity: What the segments depend on, as JSON can hold it; those of another are removed.
        form: Format of the segments, and their ending.

    Raises:
        VideoError: Another process is at it.
        OSError: The folder can't be written.
    """
    folder = target.with_name(target.name + SEGMENTS_ENDING)
    check_links(folder)
    lock = _acquire(target, folder)
    try:
        _make_fit(folder, json.dumps(identity, indent=1, sort_keys=True, default=str) + "\n")
        yield Segments(folder, form)
    finally:
        _release(lock, folder)


def _acquire(target: Path, folder: Path) -> Any:
    """Lock the folder, creating it if necessary.

    A process that finishes removes the folder with its lock: between any two steps here, and as
    often as processes finish. A lock counts only if its file is still there afterwards.
    """
    filelock = require("filelock", extra="video", purpose="Keeping parts of a video")
    lock = filelock.FileLock(folder / "lock", timeout=0)
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except FileNotFoundError:
            continue
        except filelock.Timeout:
            if not (folder / "lock").exists():
                continue
            break
        if (folder / "lock").exists():
            return lock
        lock.release()
    raise VideoError(f"{target}: another process is writing it; {folder} is locked")


def _release(lock: Any, folder: Path) -> None:
    """Give the folder back; one without a segment goes first, while nobody else can begin in it."""
    goes = not any(_NAME.fullmatch(path.name) for path in _content(folder))
    goes = goes and not _computed(folder)
    if goes:
        shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if goes and sys.platform == "win32":  # there, nobody can remove a lock that is held
        with suppress(OSError):
            (folder / "lock").unlink()
            folder.rmdir()


def remove_segments(segments: Segments) -> None:
    """Remove all segments: the result is complete."""
    for path in _content(segments.folder):
        if path.name != "lock":
            path.unlink()
    segments.done.clear()


def content_hash(path: Path) -> str:
    """BLAKE2b of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _make_fit(folder: Path, identity: str) -> None:
    """Leave segments of this identity only."""
    noted = folder / "made-of.json"
    if noted.exists() and noted.read_bytes() == identity.encode():
        return
    removed = computed = 0
    for path in _content(folder):
        if path.name != "lock":
            removed += _NAME.fullmatch(path.name) is not None
            computed += NAME.fullmatch(path.name) is not None
            path.unlink()
    if computed and not removed:
        _log.warning("%s: frames of another input or other settings removed", folder)
    if removed:
        _log.warning("%s: %d segments of another input or other settings removed", folder, removed)
    with complete_file(noted) as temporary:
        temporary.write_bytes(identity.encode())


def _content(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _computed(folder: Path) -> list[Path]:
    return [path for path in _content(folder) if NAME.fullmatch(path.name)]


def saved_frames(target: Path) -> int:
    """How many frames of a result are saved beside it, in segments or for the next one."""
    folder = target.with_name(target.name + SEGMENTS_ENDING)
    matches = filter(None, (_NAME.fullmatch(path.name) for path in _content(folder)))
    count = sum(int(match[2]) + 1 - int(match[1]) for match in matches)
    return count + sum(map(count_frames, _computed(folder)))
