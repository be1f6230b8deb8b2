"""Make one segment of a video from a description of it, wherever that is.

Data flow: `SegmentTask` → the frames of the source → `Upscaler` → a file in the folder of segments.
Nothing here knows other segments or who asks: `agsr.engines.video.division` writes the tasks and
joins the files; `agsr.engines.pool` brings the tasks to processes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agsr.engines.concurrency import BackgroundWriter, prefetch
from agsr.engines.upscaler import Upscaler
from agsr.engines.video.frames import AHEAD, upscaled
from agsr.engines.video.segment_writer import Result, SegmentWriter
from agsr.engines.video.segments import SegmentFolder
from agsr.errors import VideoError
from agsr.image.ops.output_size import OutputSize
from agsr.system.progress import ShareCallback
from agsr.video.colour import ToRgb
from agsr.video.encoder import Encoding
from agsr.video.mux import segment_format
from agsr.video.reader import open_video

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True, kw_only=True)
class SegmentTask:
    """Everything that one segment is made of. It can be pickled."""

    source: Path
    folder: Path
    """Folder of the segments, which exists."""
    first: int
    """Number of its first frame in the source, from 0."""
    count: int
    """Number of frames."""
    encoding: Encoding
    threads: int
    """As for `Encoding.add_to`."""
    sizing: OutputSize
    """Size of the frames, for the network."""
    max_pixels: int
    """Videos with larger frames are rejected."""


@dataclass(frozen=True)
class _Frame:
    number: int
    time: int
    pixels: NDArray[Any] | None
    """None if equal to the previous frame, or computed by an earlier run."""


class SegmentMaker:
    """Makes segments in the order of their frames, in one pass over each video.

    A segment that lies behind the pass starts another one.

    Args:
        upscaler: Runs in the thread that calls `make`.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler
        self._pass: _Pass | None = None

    def make(self, task: SegmentTask, progress: ShareCallback = lambda _: None) -> None:
        """Make a segment; frames of it that an interrupted attempt has computed are reused.

        Args:
            task: Description of the segment.
            progress: Called with the completed share after each tile and frame.

        Raises:
            VideoError: The source can't be decoded, or ends before.
            BackendError, MemoryError: As for images.
        """
        folder = SegmentFolder(task.folder, segment_format(task.encoding))
        source = self._begun(task)
        source.is_intact = False
        with folder.making(task.first):
            self._write(task, source, folder, progress)
        source.is_intact = True

    def _write(
        self, task: SegmentTask, source: _Pass, folder: SegmentFolder, progress: ShareCallback
    ) -> None:
        computed = sum(folder.computed_of(task.first).values())
        result: NDArray[Any] | None = None
        with (
            SegmentWriter(task.encoding, folder, threads=task.threads) as writer,
            BackgroundWriter(writer.add, AHEAD, finishes=True) as write,
            closing(prefetch(source.segment(task, computed), AHEAD)) as frames,
        ):
            for done, frame in enumerate(frames):
                if frame.pixels is not None:
                    share = partial(_within, progress, done, task.count)
                    result = upscaled(self._upscaler, frame.pixels, share, task.sizing)
                write(Result(frame.number, frame.time, result if done >= computed else None))
                progress((done + 1) / task.count)
            write.finish()
            writer.end()

    def _begun(self, task: SegmentTask) -> _Pass:
        """Return the pass over the source of a task, a new one if necessary."""
        if self._pass is None or not self._pass.reaches(task):
            self.close()
            self._pass = _Pass(task)
        return self._pass

    def close(self) -> None:
        """Close the source."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None


def _within(progress: ShareCallback, done: int, count: int, share: float) -> None:
    progress((done + share) / count)


class _Pass:
    """One pass over the frames of a video."""

    def __init__(self, task: SegmentTask) -> None:
        self._source, self._alpha = task.source, task.encoding.alpha
        self._video = open_video(task.source, str(task.source), task.max_pixels)
        self._frames = self._video.frames(watched=False)
        self._next = 0
        self.is_intact = True
        """Whether the last segment was read to its end."""

    def reaches(self, task: SegmentTask) -> bool:
        """Return True if the frames of a task lie ahead."""
        key = self._source, self._alpha
        ahead = self._next <= task.first
        return self.is_intact and ahead and key == (task.source, task.encoding.alpha)

    def segment(self, task: SegmentTask, computed: int) -> Generator[_Frame, None, None]:
        """Yield the frames of a segment; ``computed`` ones at its beginning have no pixels.

        Raises:
            VideoError: The video ends before.
        """
        to_rgb, before, stop = ToRgb(self._video.properties, self._alpha), None, task.first
        stop += task.count
        for number, (time, frame) in self._until(stop):
            if number < task.first:
                continue
            if number < task.first + computed:
                yield _Frame(number, time, None)
                continue
            pixels = to_rgb(frame)
            repeated = before is not None and np.array_equal(pixels, before)
            before = pixels
            yield _Frame(number, time, None if repeated else pixels)
        if self._next < stop:
            raise VideoError(f"{self._source}: ends after {self._next} frames, before frame {stop}")

    def _until(self, stop: int) -> Iterator[tuple[int, tuple[int, VideoFrame]]]:
        for frame in islice(self._frames, stop - self._next):
            self._next += 1
            yield self._next - 1, frame

    def close(self) -> None:
        """Close the video."""
        self._frames.close()
        self._video.close()
