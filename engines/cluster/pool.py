"""`ClusterPool`: upscale a batch on a Ray cluster, and survive the death of actors and nodes.

Data flow: jobs → `agsr.engines.pool.job_queue` → small batches to actors
(`agsr.engines.cluster.actor`) → rows → `Outcome`s in order of completion. This process holds the
jobs and what is under way; pictures pass only between the actors and the files.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.backend import BackendInfo
from agsr.engines.batch.outcome import InferOptions, Outcome
from agsr.engines.batch.plan import STREAM, Job
from agsr.engines.cluster.actor import Report, Row
from agsr.engines.cluster.crew import Actor, ClusterCrew
from agsr.engines.cluster.request import ClusterRequest
from agsr.engines.feather import Seams
from agsr.engines.pool.job_queue import JobQueue
from agsr.engines.pool.messages import Task
from agsr.errors import BackendError, ImageRequestError
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.store.address import Location
from agsr.store.locations import remove_abandoned
from agsr.system.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from agsr.engines.tensorrt.progress import Report as BuildReport
    from agsr.engines.video import VideoOptions

BATCH = 8
"""Most files that an actor gets at a time."""

AHEAD = 2
"""Batches that an actor has at most: one that it computes, and the next."""

NODES = 3
"""Nodes that a file may lose before that counts as its own fault."""

WAIT = 0.5
"""Seconds between two looks at the cluster while nothing is reported."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """A call of `ClusterPool.process`."""

    jobs: Sequence[Job]
    queue: JobQueue
    options: InferOptions
    video_options: VideoOptions | None
    nodes_lost: Counter[int] = field(default_factory=Counter)
    """Nodes that died with a job."""
    folders_lost: set[Location] = field(default_factory=set)
    """Where dead actors may have left parts of results."""

    def task(self, number: int) -> Task:
        job = self.jobs[number]
        options: Any = self.video_options if job.is_video else self.options
        places = {"source": _absolute(job.source), "target": _absolute(job.target)}
        return Task(number, replace(job, **places), options)


class ClusterPool:
    """Upscales files by actors on a Ray cluster; used like `agsr.engines.pool.pool.WorkerPool`.

    Files are read and written by the nodes: local names mean the same on all of them, as on a
    shared disk, or files have addresses.

    >>> from agsr.engines.cluster.pool import ClusterPool
    >>> from agsr.engines.cluster.request import ClusterRequest
    >>> with ClusterPool(ClusterRequest("head:6379"), "psnr") as pool:  # doctest: +SKIP
    ...     for outcome in pool.process(jobs, InferOptions()):
    ...         print(outcome.job.target, outcome.error)

    Args:
        cluster: Its address and the number of workers.
        weights: As for `Upscaler`.
        running: Further arguments of `Upscaler`; ``threads`` is the CPUs of a worker, too.

    Raises:
        BackendError: The cluster can't be reached, or has no room for a worker.
    """

    def __init__(
        self, cluster: ClusterRequest, weights: str = DEFAULT_WEIGHTS, **running: Any
    ) -> None:
        self._crew = ClusterCrew(cluster, weights, running)
        self.seams = Seams()
        """How much blended tiles differed, at most, in any worker; see `Upscaler`."""
        self.shows_halo = False
        """Whether the halo had an effect in any worker; see `Upscaler`."""

    @property
    def info(self) -> BackendInfo:
        """What runs, as the first worker reports; it is opened if needed."""
        return self.open()

    def open(self, progress: BuildReport = lambda *_: True) -> BackendInfo:  # noqa: ARG002
        """Open the network in one worker; its choice of backend holds for all others.

        Raises:
            AgsrError: It can't be opened.
        """
        return self._crew.open()

    def process(
        self,
        jobs: Sequence[Job],
        options: InferOptions,
        progress: ProgressCallback = lambda _: None,
        *,
        video_options: VideoOptions | None = None,
        compressed: Callable[[Job], object] = lambda _: None,  # noqa: ARG002
    ) -> Generator[Outcome]:
        """Upscale files; a failure affects only its own file.

        The files of a dead actor get a second attempt, each alone; those of a dead node several.

        Args:
            jobs: From `agsr.engines.batch.plan.plan`; files only.
            options: Of images.
            progress: Called with the progress over all files.
            video_options: Of videos.
            compressed: Unused; nodes report no details of videos.

        Yields:
            An outcome per job, in order of completion.

        Raises:
            AgsrError: The network can't be opened.
        """
        if any(STREAM in (job.source, job.target) for job in jobs):
            raise ImageRequestError("stdin and stdout can't be divided among workers; use files")
        self.open()
        options = replace(options, stdin_head=b"", examine=InferOptions().examine)
        batch = _Batch(jobs, JobQueue(len(jobs)), options, video_options)
        done = 0
        try:
            while done < len(jobs):
                for outcome in self._step(batch):
                    done += 1
                    yield outcome
                progress(Progress(done, len(jobs)))
        finally:
            self._crew.dismiss_all()
            for folder in batch.folders_lost:
                remove_abandoned(folder, again=True)

    def close(self) -> None:
        """End the workers, and leave the cluster."""
        self._crew.close()

    def __enter__(self) -> ClusterPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step(self, batch: _Batch) -> list[Outcome]:
        """Start and feed actors, wait for an answer, and return what has ended."""
        outcomes: list[Outcome] = []
        if self._crew.gives_up:
            outcomes = [self._unfinished(batch.jobs[number]) for number in batch.queue.drain()]
        self._crew.hire(batch.queue.waiting)
        for actor in self._crew.actors:
            while self._feed(actor, batch):
                pass
        for actor, reference in self._crew.answered(WAIT):
            outcomes += self._receive(actor, reference, batch)
        return outcomes

    def _feed(self, actor: Actor, batch: _Batch) -> bool:
        """Send an actor a batch of files, if it needs some; return True if it did."""
        if actor.info is None or len(actor.batches) >= AHEAD:
            return False
        workers = max(1, self._crew.places)
        size = max(1, min(BATCH, batch.queue.waiting // (workers * 2 * AHEAD)))
        numbers: list[int] = []
        while len(numbers) < size:
            held = {*actor.held, *numbers}
            number = batch.queue.take(held, idle=not held, workers=workers)
            if number is None:
                break
            numbers.append(number)
        if numbers:
            actor.deal([batch.task(number) for number in numbers])
        return bool(numbers)

    def _receive(self, actor: Actor, reference: Any, batch: _Batch) -> list[Outcome]:
        """Handle an actor's answer or death; return what has ended."""
        answer = self._crew.answer(actor, reference)
        if answer is None:
            return self._lose(actor, batch)
        if not isinstance(answer, Report):
            return []
        actor.batches.pop(reference)
        self._crew.finished(actor, answer)
        self.shows_halo |= answer.shows_halo
        self.seams.include(answer.seams)
        return [_outcome(batch.jobs[row.number], row) for row in answer.rows]

    def _lose(self, actor: Actor, batch: _Batch) -> list[Outcome]:
        """Queue the files of a dead actor; return those that failed for good."""
        held, (reason, of_node) = actor.held, self._crew.bury(actor)
        batch.folders_lost.update(batch.jobs[number].target.parent for number in held)
        spared = {n for n in held if batch.nodes_lost[n] < NODES} if of_node else set[int]()
        batch.nodes_lost.update(spared)
        batch.queue.put_back(spared)
        failed = batch.queue.lose(held - spared)
        again = len(held) - len(failed)
        _log.warning("%s%s", reason, f"; {again} of its files are tried again" if again else "")
        return [_failed(batch.jobs[number], reason) for number in sorted(failed)]

    def _unfinished(self, job: Job) -> Outcome:
        error = f"{job.source}: no worker is left: {self._crew.last_end}"
        return Outcome(job, error, BackendError)


def _outcome(job: Job, row: Row) -> Outcome:
    error, name = row.error, str(_absolute(job.source))
    if error is not None and error.startswith(name):
        error = str(job.source) + error[len(name) :]
    return Outcome(
        *(job, error, row.kind, row.size, row.alpha),
        seconds=row.seconds,
        nbytes=row.nbytes,
    )


def _failed(job: Job, reason: str) -> Outcome:
    return Outcome(job, f"{job.source}: {reason}, in two attempts", BackendError)


def _absolute(location: Any) -> Any:
    """Return a local path from the root: actors have another working folder."""
    return location.absolute() if isinstance(location, Path) else location
