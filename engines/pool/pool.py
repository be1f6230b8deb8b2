"""`WorkerPool`: upscale a batch in several processes, and survive the death of any of them.

Data flow: jobs → `agsr.engines.pool.job_queue` → processes (`agsr.engines.pool.worker`), each with
the network on its device → results → `Outcome`s in order of completion. The pool's own process
loads no runtime.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from agsr.backend import BackendInfo
from agsr.engines.batch.outcome import InferOptions, Outcome
from agsr.engines.batch.plan import STREAM, Job
from agsr.engines.feather import Seams
from agsr.engines.pool import messages
from agsr.engines.pool.crew import Crew, Slot
from agsr.engines.pool.devices import worker_devices
from agsr.engines.pool.job_queue import JobQueue
from agsr.engines.pool.process import WorkerProcess
from agsr.errors import BackendError, ImageRequestError
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.store.locations import remove_abandoned
from agsr.system.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from agsr.engines.tensorrt.progress import Report
    from agsr.engines.video import VideoOptions

__all__ = ["WorkerPool"]

RESTARTS = 3
"""Times that a worker may die in a row, without a finished file, before it is not replaced."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """A call of `WorkerPool.process`."""

    jobs: Sequence[Job]
    queue: JobQueue
    options: InferOptions
    video_options: VideoOptions | None
    compressed: Callable[[Job], object]
    ended: deque[Outcome] = field(default_factory=deque)
    """What has ended and isn't yielded yet."""

    def task(self, number: int) -> messages.Task:
        job = self.jobs[number]
        return messages.Task(
            number, job, self._options_of_videos() if job.is_video else self.options
        )

    def _options_of_videos(self) -> VideoOptions:
        if self.video_options is not None:
            return self.video_options
        from agsr.engines.video import VideoOptions

        names = ("sizing", "strip", "max_pixels")
        return VideoOptions(**{name: getattr(self.options, name) for name in names})


class WorkerPool:
    """Upscales files in several processes: one per GPU, or several that share the CPUs.

    The processes are started by ``spawn``: a script that makes a pool needs
    ``if __name__ == "__main__":``.

    >>> from agsr.engines.pool.pool import WorkerPool
    >>> with WorkerPool("cpu:4", "psnr") as pool:  # doctest: +SKIP
    ...     for outcome in pool.process(jobs, InferOptions()):
    ...         print(outcome.job.target, outcome.error)

    Args:
        devices: GPUs like ``cuda:0,cuda:1``, or ``cpu:N`` for N processes, each with 1/N of the
            CPUs that this process may use.
        weights: As for `Upscaler`.
        restarts: Times that a worker may die in a row, without a finished file, before it is not
            replaced.
        running: Further arguments of `Upscaler`.

    Raises:
        BackendRequestError: A device is unknown, or not one of the backend's.
    """

    def __init__(
        self,
        devices: str,
        weights: str = DEFAULT_WEIGHTS,
        *,
        restarts: int = RESTARTS,
        **running: Any,
    ) -> None:
        self._crew = Crew(worker_devices(devices, weights, running), weights, running, restarts)
        self.shows_halo = False
        """Whether the halo had an effect in any worker; see `Upscaler`."""
        self.seams = Seams()
        """How much blended tiles differed, at most, in any worker; see `Upscaler`."""

    @property
    def info(self) -> BackendInfo:
        """What runs, as the first worker reports; it is opened if needed."""
        return self.open()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for _, process in self._crew.staffed() if process.pid is not None]

    def open(self, progress: Report = lambda *_: True) -> BackendInfo:
        """Open the network in one worker; its choice of backend holds for all others.

        Args:
            progress: Called with the progress of a TensorRT engine's build; may cancel it.

        Raises:
            AgsrError: It can't be opened on any device; the error is that of the first.
        """
        return self._crew.open(progress)

    def process(
        self,
        jobs: Sequence[Job],
        options: InferOptions,
        progress: ProgressCallback = lambda _: None,
        *,
        video_options: VideoOptions | None = None,
        compressed: Callable[[Job], object] = lambda _: None,
    ) -> Generator[Outcome]:
        """Upscale files; a failure affects only its own file.

        If a worker dies, its files are upscaled by another one. A file fails if a worker dies at
        its second attempt, too.

        Args:
            jobs: From `agsr.engines.batch.plan.plan`; files only.
            options: Of images.
            progress: Called with the progress over all files.
            video_options: Of videos; the default follows ``options``.
            compressed: Called with each video that is strongly compressed.

        Yields:
            An outcome per job, in order of completion.

        Raises:
            AgsrError: The network can't be opened.
            KeyboardInterrupt: After yielding the outcomes of complete results. One that interrupts
                the caller may be thrown into the generator to get them.
        """
        if any(STREAM in (job.source, job.target) for job in jobs):
            raise ImageRequestError("stdin and stdout can't be divided among workers; use files")
        self.open()
        options = replace(options, stdin_head=b"", examine=InferOptions().examine)
        batch = _Batch(jobs, JobQueue(len(jobs)), options, video_options, compressed)
        done = 0
        try:
            while done < len(jobs):
                self._step(batch)
                while batch.ended:
                    done += 1
                    yield batch.ended.popleft()
                shares = sum(sum(process.held.values()) for _, process in self._crew.staffed())
                progress(Progress(min(done + shares, len(jobs)), len(jobs)))
        except KeyboardInterrupt:
            held = self._held(batch)
            while batch.ended:
                yield batch.ended.popleft()
            yield from (finished.outcome for finished in self._crew.stop())
            _remove_partial(held)
            raise
        finally:
            if done < len(jobs):
                self.close()

    def close(self) -> None:
        """End the workers; a file that one still computes is dropped."""
        self._crew.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _held(self, batch: _Batch) -> list[Job]:
        held = {number for _, process in self._crew.staffed() for number in process.held}
        return [batch.jobs[number] for number in sorted(held)]

    def _step(self, batch: _Batch) -> None:
        """Start and feed workers, wait for a message, and collect what has ended."""
        if not self._crew.places:
            batch.ended.extend(self._unfinished(batch.jobs[n]) for n in batch.queue.drain())
            return
        self._crew.hire(batch.queue.waiting)
        for _, process in self._crew.staffed():
            self._feed(process, batch)
        staff = {process.pipe: (slot, process) for slot, process in self._crew.staffed()}
        for pipe in wait(list(staff)):
            batch.ended.extend(self._receive(*staff[pipe], batch))  # type: ignore[index]

    def _feed(self, process: WorkerProcess, batch: _Batch) -> None:
        if process.info is None or process.wants is None:
            return
        held, workers = process.held.keys(), self._crew.places
        number = batch.queue.take(held, idle=process.wants, workers=workers)
        if number is not None:
            process.deal(batch.task(number))

    def _receive(self, slot: Slot, process: WorkerProcess, batch: _Batch) -> list[Outcome]:
        """Handle a worker's message or death; return what has ended."""
        try:
            message = process.receive()
        except EOFError:
            return self._lose(slot, process, batch)
        match message:
            case messages.Done():
                return self._done(slot, process, message)
            case messages.Wants():
                process.wants = message.idle
            case messages.Share() if message.number in process.held:
                process.held[message.number] = message.share
            case messages.Compressed():
                batch.compressed(batch.jobs[message.number])
            case messages.Logged():
                self._crew.log(process, message)
            case messages.Opened():
                self._crew.admit(slot, process, message.info)
            case messages.Failed():
                self._crew.dismiss(slot, process, f"can't open the network: {message.error}")
        return []

    def _done(self, slot: Slot, process: WorkerProcess, done: messages.Done) -> list[Outcome]:
        process.held.pop(done.number)
        slot.deaths = 0
        self.shows_halo |= done.shows_halo
        self.seams.include(done.seams)
        return [done.outcome]

    def _lose(self, slot: Slot, process: WorkerProcess, batch: _Batch) -> list[Outcome]:
        """Queue the files of a worker that died; return those that failed twice."""
        reason = self._crew.bury(slot, process)
        failed = batch.queue.lose(process.held.keys())
        _remove_partial([batch.jobs[number] for number in process.held])
        again = ", ".join(str(batch.jobs[n].source) for n in sorted(process.held.keys() - failed))
        _log.warning("%s%s", self._crew.last_end, f"; trying again: {again}" if again else "")
        return [_failed_twice(batch.jobs[number], reason) for number in sorted(failed)]

    def _unfinished(self, job: Job) -> Outcome:
        error = f"{job.source}: no worker is left: {self._crew.last_end}"
        return Outcome(job, error, BackendError)


def _failed_twice(job: Job, reason: str) -> Outcome:
    advice = "; use a smaller --tile or fewer workers" if "memory" in reason else ""
    error = f"{job.source}: its worker process {reason}, in two attempts{advice}"
    return Outcome(job, error, BackendError)


def _remove_partial(jobs: Sequence[Job]) -> None:
    """Remove what a killed worker has left of these jobs' results."""
    for folder in {job.target.parent for job in jobs}:
        remove_abandoned(folder, again=True)
