"""Upscale one video in all workers of a pool: each makes segments, this process joins them.

Data flow: `agsr.engines.video.division` reads the source and describes its segments → workers →
segment files → the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from agsr.engines.batch.outcome import Outcome, reason_of
from agsr.engines.batch.plan import Job
from agsr.engines.concurrency import prefetch
from agsr.engines.pool.work import SegmentsOfVideo

if TYPE_CHECKING:
    from agsr.engines.pool.pool import WorkerPool
    from agsr.engines.video import VideoOptions
    from agsr.engines.video.division import Division
    from agsr.engines.video.segment_task import SegmentTask


def share_video(
    pool: WorkerPool,
    job: Job,
    options: VideoOptions,
    compressed: Callable[[], object],
    progress: Callable[[float], None],
) -> Outcome:
    """Upscale a video in all workers; resumable like `agsr.engines.video.upscale_video`.

    Args:
        pool: Has no other work.
        job: The video.
        options: Size and encoding.
        compressed: Called if the video is strongly compressed.
        progress: Called with the completed share.

    Raises:
        KeyboardInterrupt: After the workers have saved what they computed.
    """
    from agsr.engines.video.division import divided
    from agsr.store.locations import local

    try:
        source, target = local(job.source), local(job.target)
        with divided(pool.facts, source, target, options, compressed) as division:
            pool.start(division.at_most)
            try:
                failed = _Sharing(pool, job, division, progress).run()
            except KeyboardInterrupt:
                pool.stop()
                raise
            return failed or Outcome(job, size=division.complete())
    except Exception as error:  # any failure affects one file only
        return Outcome(job, reason_of(job, error), type(error))


class _Sharing:
    """One video while it is made."""

    def __init__(
        self, pool: WorkerPool, job: Job, division: Division, progress: Callable[[float], None]
    ) -> None:
        self._pool, self._division, self._progress = pool, division, progress
        self._work = SegmentsOfVideo(job)
        self._frames = 0
        """Frames in the segments that this run has finished."""
        self._reached = 0.0
        """Progress that was reported; the share of a worker that dies is not taken back."""
        self._failed: Outcome | None = None

    def run(self) -> Outcome | None:
        """Make all segments; return the outcome that the video shares with a failed segment.

        Segments that are begun are finished, so that another run can use them.

        Raises:
            VideoError: The source can't be decoded completely.
        """
        error: Exception | None = None
        with closing(prefetch(self._division.tasks(), max(1, self._pool.places))) as tasks:
            more = True
            while more or self._work.queue.waiting or self._pool.held:
                if more and self._work.queue.waiting <= self._pool.places:
                    try:
                        more = self._add(tasks)
                    except Exception as raised:  # after the segments before
                        more, error = False, raised
                    continue
                self._pool.step(self._work)
                while self._work.ended:
                    self._ended(*self._work.ended.popleft())
                more = more and self._failed is None
                self._report()
        if error is not None and self._failed is None:
            raise error
        return self._failed

    def _add(self, tasks: Iterator[SegmentTask]) -> bool:
        """Queue the next missing segment; return False if there is none."""
        task = next(tasks, None)
        if task is not None:
            self._work.add(task)
        return task is not None

    def _ended(self, number: int, outcome: Outcome) -> None:
        if outcome.error is None:
            self._division.finished(self._work.tasks[number])
            self._frames += self._work.tasks[number].count
        elif self._failed is None:
            self._failed = outcome
            self._work.queue.drain()

    def _report(self) -> None:
        held = self._pool.held.items()
        computed = sum(share * self._work.tasks[number].count for number, share in held)
        done = self._division.reused + self._frames + computed
        self._reached = max(self._reached, min(1.0, done / self._division.total))
        self._progress(self._reached)
