"""Divide a video into segments that others make, and join what they made.

Data flow: a `Preparation` → one pass over the source, which finds the number and times of its
frames → a `SegmentTask` per missing segment → `agsr.engines.video.segment_task` in any process →
the result. It equals that of `agsr.engines.video.upscale`, and either continues the other's work.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from agsr.engines.picture_upscaler import NetworkFacts
from agsr.engines.video.options import VideoOptions
from agsr.engines.video.preparation import Preparation, prepared
from agsr.engines.video.segment_task import SegmentTask
from agsr.engines.video.segments import LENGTH
from agsr.system.quiet_stderr import decoding
from agsr.video.mux import Timing


class Division:
    """The segments of one video; see `divided`."""

    def __init__(self, work: Preparation, source: Path) -> None:
        self._work, self._source = work, source
        self._times = array("q")
        self._last = work.opened.video.properties.usual_duration
        self.total = max(1, work.opened.seen.frames)
        """Number of frames, as the packets show."""
        self.reused = 0
        """Frames in segments of earlier runs, as far as the source is read."""

    @property
    def at_most(self) -> int:
        """Number of segments that may be missing."""
        return -(-self.total // LENGTH) - len(self._work.segments.done)

    def tasks(self) -> Generator[SegmentTask, None, None]:
        """Yield a task per missing segment, in order; the source is read as far as that.

        Raises:
            VideoError: A frame can't be decoded; the segments before it were yielded.
        """
        usual = self._last
        with closing(self._work.opened.video.frames()) as frames:
            while True:
                with decoding():
                    item = next(frames, None)
                if item is None:
                    break
                self._times.append(item[0])
                self._last = item[1].duration or usual
                if len(self._times) % LENGTH == 0:
                    yield from self._missing(len(self._times) - LENGTH)
        if start := len(self._times) % LENGTH:
            yield from self._missing(len(self._times) - start)

    def _missing(self, first: int) -> Iterator[SegmentTask]:
        if first in self._work.segments.done:
            self.reused += self._work.segments.done[first]
            return
        yield SegmentTask(
            source=self._source,
            folder=self._work.segments.folder,
            first=first,
            count=len(self._times) - first,
            encoding=self._work.encoding,
            threads=self._work.encoding.threads,
            sizing=self._work.sizing,
            max_pixels=self._work.options.max_pixels,
        )

    def finished(self, task: SegmentTask) -> None:
        """Record that the segment of a task is complete."""
        self._work.segments.done[task.first] = task.count

    def complete(self) -> tuple[int, int]:
        """Join the segments after all tasks are finished.

        Returns:
            Height and width of the result.

        Raises:
            VideoError: Segments are missing or damaged.
            OSError: The result can't be written.
        """
        with decoding():
            self._work.complete(Timing(self._times, self._last))
        return self._work.encoding.height, self._work.encoding.width


@contextmanager
def divided(
    network: NetworkFacts,
    source: Path,
    target: Path,
    options: VideoOptions | None = None,
    blocky: Callable[[], object] = lambda: None,
) -> Iterator[Division]:
    """Open a video to be made in segments by others; the folder is locked within the context.

    Args:
        network: Facts of the network that all of them run.
        source: As for `agsr.engines.video.upscale_video`.
        target: As for `agsr.engines.video.upscale_video`.
        options: As for `agsr.engines.video.upscale_video`.
        blocky: As for `agsr.engines.video.upscale_video`.

    Raises:
        VideoError: As for `agsr.engines.video.upscale_video`.
    """
    with ExitStack() as stack:
        with decoding():
            work = stack.enter_context(
                prepared(network, source, target, options or VideoOptions(), blocky)
            )
        yield Division(work, source)
