"""What a pool has to do at a time: the files of a batch, or the segments of one video.

`agsr.engines.pool.pool` deals both by their numbers, and asks here what a number stands for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agsr.engines.batch.outcome import InferOptions, Outcome
from agsr.engines.batch.plan import Job
from agsr.engines.pool.job_queue import JobQueue
from agsr.engines.pool.messages import SegmentOrder, Task

if TYPE_CHECKING:
    from agsr.engines.video import VideoOptions
    from agsr.engines.video.segment_task import SegmentTask


class Work(Protocol):
    """Numbered work for workers."""

    @property
    def queue(self) -> JobQueue:
        """Deals the numbers."""

    @property
    def ended(self) -> deque[tuple[int, Outcome]]:
        """What has ended and isn't handled yet, by its number."""

    def order(self, number: int) -> Task | SegmentOrder:
        """Return the message for a worker."""

    def job(self, number: int) -> Job:
        """Return the file that it belongs to."""

    def label(self, number: int) -> str:
        """Name it in a warning."""

    def compressed(self, number: int) -> object:
        """Handle the report that a video is strongly compressed."""


@dataclass(frozen=True)
class Files:
    """Files, each for one worker."""

    jobs: Sequence[Job]
    options: InferOptions
    video_options: VideoOptions | None
    """None if no file is a video."""
    report_compressed: Callable[[Job], object]
    queue: JobQueue
    ended: deque[tuple[int, Outcome]] = field(default_factory=deque)

    def order(self, number: int) -> Task:
        """Return the message for a worker."""
        job = self.jobs[number]
        if not job.is_video:
            return Task(number, job, self.options)
        assert self.video_options is not None
        return Task(number, job, self.video_options)

    def job(self, number: int) -> Job:
        """Return the file."""
        return self.jobs[number]

    def label(self, number: int) -> str:
        """Return the file's name."""
        return str(self.jobs[number].source)

    def compressed(self, number: int) -> object:
        """Handle the report that a video is strongly compressed."""
        return self.report_compressed(self.jobs[number])


@dataclass(frozen=True)
class SegmentsOfVideo:
    """Segments of one video, added while its source is read."""

    video: Job
    queue: JobQueue = field(default_factory=lambda: JobQueue(0))
    tasks: list[SegmentTask] = field(default_factory=list)
    ended: deque[tuple[int, Outcome]] = field(default_factory=deque)

    def add(self, task: SegmentTask) -> None:
        """Queue a segment."""
        self.tasks.append(task)
        self.queue.add()

    def order(self, number: int) -> SegmentOrder:
        """Return the message for a worker."""
        return SegmentOrder(number, self.video, self.tasks[number])

    def job(self, number: int) -> Job:  # noqa: ARG002  # all belong to one file
        """Return the video."""
        return self.video

    def label(self, number: int) -> str:
        """Return the video's name and the frames."""
        task = self.tasks[number]
        return f"{self.video.source}, frames {task.first} to {task.first + task.count - 1}"

    def compressed(self, number: int) -> None:
        """Do nothing: the process that divides the video reports it."""
