"""Manage the finished segments of a video, stored beside the result until it is complete.

Each segment is a file named by its frames, which appears under that name only when complete.
Computed frames of the next segment are beside them (`agsr.engines.video.spool`). The input and all
settings are recorded; segments made from others are removed.
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
from agsr.system.signals import GRACE
from agsr.video.formats import SEGMENTS_ENDING
from agsr.video.mux import SEGMENT_FORMATS

if TYPE_CHECKING:
    from av import VideoFrame

LENGTH = 48
"""Frames per segment, except the last."""

_ATTEMPTS = 20
"""Attempts to lock a folder that other processes may remove."""

_MAKING = ".making.lock"
"""Ending of the locks of segments."""

_PATIENCE = 2 * GRACE
"""Seconds to wait for a worker whose command was killed."""

_NAME = re.compile(rf"frames-(\d+)-(\d+)\.({'|'.join(SEGMENT_FORMATS)})")

_log = logging.getLogger(__name__)


class SegmentFolder:
    """Files of the segments of one result. Several processes may write different segments.

    Args:
        folder: Existing folder.
        form: Format and ending of the segments.
    """

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form = folder, form

    def unfinished(self, first: int) -> Path:
        """Return the path of a segment while it is written."""
        return self.folder / f"unfinished-{first:08}.part"

    def complete(self, first: int, count: int) -> None:
        """Give a written segment its final name, which makes it persistent."""
        path = self.unfinished(first)
        with path.open("r+b") as file:
            os.fsync(file.fileno())
        path.replace(self.path(first, count))
        for number, computed in _computed(self.folder).items():
            if first <= number < first + count:
                remove_frames(computed)

    def computed_of(self, first: int) -> dict[int, int]:
        """Return the computed frames that a segment begins with.

        Returns:
            The number of frames in each file, by its first frame; each continues the one before.
        """
        number, found = first, dict[int, int]()
        while number < first + LENGTH and (count := count_frames(self._computed(number))):
            found[number] = count
            number += count
        return found

    def computed_frames(self, first: int) -> Iterator[VideoFrame]:
        """Yield the frames that `computed_of` counts."""
        for number, count in self.computed_of(first).items():
            yield from islice(read_frames_of(self._computed(number)), count)

    @contextmanager
    def making(self, first: int) -> Iterator[None]:
        """Lock a segment, for a process that has not locked the folder.

        Raises:
            VideoError: Another process makes it.
        """
        with _locked(self.folder / f"{first:08}{_MAKING}"):
            yield

    def path(self, first: int, count: int) -> Path:
        """Return the final path of a segment."""
        return self.folder / f"frames-{first:08}-{first + count - 1:08}.{self.form}"

    def _computed(self, number: int) -> Path:
        return self.folder / f"computed-{number:08}.nut"


class Segments(SegmentFolder):
    """The segments of one result, for the process that has locked their folder."""

    def __init__(self, folder: Path, form: str) -> None:
        super().__init__(folder, form)
        self.done: dict[int, int] = {}
        """Number of frames in each segment, by its first frame."""
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                first, last = int(match[1]), int(match[2])
                self.done[first] = last + 1 - first
            elif path.suffix == ".part":
                path.unlink()
        self.computed = self._usable()
        """Number of computed frames outside segments, by the first frame of each file."""

    def complete(self, first: int, count: int) -> None:
        """Give a written segment its final name, which makes it persistent."""
        super().complete(first, count)
        self.done[first] = count

    def is_computed(self, number: int) -> bool:
        """Return True if a frame is computed, but not in a segment yet."""
        return any(first <= number < first + count for first, count in self.computed.items())

    def _usable(self) -> dict[int, int]:
        """Return the files of computed frames that missing segments begin with; remove others."""
        found = _computed(self.folder)
        usable: dict[int, int] = {}
        for first in sorted({number - number % LENGTH for number in found} - self.done.keys()):
            usable |= self.computed_of(first)
        for number in found.keys() - usable.keys():
            remove_frames(found[number])
        return usable

    def remove(self, path: Path) -> None:
        """Remove a damaged segment."""
        path.unlink(missing_ok=True)

    def in_order(self, frames: int) -> list[tuple[Path, int]]:
        """Return all segments of a video with ``frames`` frames, in order.

        Raises:
            VideoError: They don't cover it, so they belong to something else.
        """
        ordered = sorted(self.done.items())
        expected = 0
        for first, count in ordered:
            if first != expected:
                break
            expected += count
        if expected != frames or sum(self.done.values()) != frames:
            raise VideoError(f"{self.folder}: not the segments of {frames} frames; remove it")
        return [(self.path(first, count), count) for first, count in ordered]


@contextmanager
def open_segments(target: Path, identity: Mapping[str, Any], form: str) -> Iterator[Segments]:
    """Open the segment folder beside a result, for one process at a time.

    Args:
        target: The result.
        identity: Everything that the segments depend on, JSON-serialisable; segments with another
            identity are removed.
        form: Format and ending of the segments.

    Raises:
        VideoError: Another process is writing the result.
        OSError: The folder can't be written.
    """
    folder = target.with_name(target.name + SEGMENTS_ENDING)
    check_links(folder)
    lock = _acquire(target, folder)
    try:
        for path in sorted(folder.glob("*" + _MAKING)):
            with _locked(path):  # a worker whose command was killed ends soon
                pass
        _remove_mismatched(
            folder, json.dumps(identity, indent=1, sort_keys=True, default=str) + "\n"
        )
        yield Segments(folder, form)
    finally:
        _release(lock, folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    filelock = require("filelock", extra="video", purpose="Saving parts of a video")
    try:
        with filelock.FileLock(path, timeout=_PATIENCE):
            yield
    except filelock.Timeout:
        raise VideoError(f"{path.parent}: another process is writing a segment of it") from None


def _acquire(target: Path, folder: Path) -> Any:
    """Lock the folder, creating it if necessary.

    A process that finishes removes the folder with its lock, possibly between any two steps here. A
    lock is valid only if its file still exists afterwards.
    """
    filelock = require("filelock", extra="video", purpose="Saving parts of a video")
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
    """Release the lock; an empty folder is removed first, while no other process can use it."""
    is_empty = not any(_NAME.fullmatch(path.name) for path in _content(folder))
    is_empty = is_empty and not _computed(folder)
    if is_empty:
        shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if is_empty and sys.platform == "win32":  # Windows can't remove a locked file
        with suppress(OSError):
            (folder / "lock").unlink()
            folder.rmdir()


def remove_segments(segments: Segments) -> None:
    """Remove all segments after the result is complete."""
    for path in _content(segments.folder):
        if path.name != "lock":
            path.unlink()
    segments.done.clear()


def content_hash(path: Path) -> str:
    """Return the BLAKE2b digest of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _remove_mismatched(folder: Path, identity: str) -> None:
    """Remove segments with another identity."""
    manifest = folder / "made-of.json"
    if manifest.exists() and manifest.read_bytes() == identity.encode():
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
    with complete_file(manifest) as temporary:
        temporary.write_bytes(identity.encode())


def _content(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _computed(folder: Path) -> dict[int, Path]:
    """Return the files of computed frames by the first frame of each."""
    matches = ((NAME.fullmatch(path.name), path) for path in _content(folder))
    return {int(match[1]): path for match, path in matches if match}


def saved_frames(target: Path) -> int:
    """Count the saved frames of a result, in segments and for the next one."""
    folder = target.with_name(target.name + SEGMENTS_ENDING)
    matches = filter(None, (_NAME.fullmatch(path.name) for path in _content(folder)))
    count = sum(int(match[2]) + 1 - int(match[1]) for match in matches)
    return count + sum(map(count_frames, _computed(folder).values()))
