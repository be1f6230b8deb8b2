"""`WorkerPool`: upscale a batch in several processes, and survive the death of any of them.

Data flow: jobs → `agsr.engines.pool.job_queue` → processes (`agsr.engines.pool.worker`), each with
the network on its device → results → `Outcome`s in order of completion. The pool's own process
loads no runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
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
from agsr.engines.pool.shared_video import share_video
from agsr.engines.pool.work import Files, Work
from agsr.errors import BackendError, ImageRequestError
from agsr.pretrained import DEFAULT_WEIGHTS
from agsr.store.locations import remove_abandoned
from agsr.system.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from agsr.engines.picture_upscaler import NetworkFacts
    from agsr.engines.tensorrt.progress import Report
    from agsr.engines.video import VideoOptions

__all__ = ["WorkerPool"]

RESTARTS = 3
"""Times that a worker may die in a row, without a finished file, before it is not replaced."""

_log = logging.getLogger(__name__)


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
    def facts(self) -> NetworkFacts:
        """What the results of all workers depend on."""
        self.open()
        assert self._crew.facts is not None
        return self._crew.facts

    @property
    def places(self) -> int:
        """Number of workers that run or may be started."""
        return self._crew.places

    @property
    def held(self) -> dict[int, float]:
        """What the workers have, with completed shares."""
        return {n: share for _, p in self._crew.staffed() for n, share in p.held.items()}

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
        shared = [job for job in jobs if job.is_video]
        if shared and video_options is None:
            video_options = _options_of_videos(options)
        if len(shared) >= self._crew.places:  # then a worker per video computes no frame twice
            shared = []
        files = [job for job in jobs if not (shared and job.is_video)]
        work = Files(files, options, video_options, compressed, JobQueue(len(files)))
        done = 0

        def report(held: float) -> None:
            progress(Progress(min(done + held, len(jobs)), len(jobs)))

        try:
            while done < len(files):
                self.step(work)
                while work.ended:
                    done += 1
                    yield work.ended.popleft()[1]
                report(sum(self.held.values()))
            for job in shared:
                assert video_options is not None
                outcome = share_video(self, job, video_options, partial(compressed, job), report)
                done += 1
                yield outcome
                report(0)
        except KeyboardInterrupt:
            held = [work.job(number) for number in self.held]
            while work.ended:
                yield work.ended.popleft()[1]
            yield from (finished.outcome for finished in self._crew.stop())
            _remove_partial(held)
            raise
        finally:
            if done < len(jobs):
                self.close()

    def start(self, jobs: int) -> None:
        """Start workers for so many jobs, as far as there are places."""
        self._crew.hire(jobs)

    def stop(self) -> None:
        """End the workers, which still write what is computed."""
        for _ in self._crew.stop():
            pass

    def close(self) -> None:
        """End the workers; a file that one still computes is dropped."""
        self._crew.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, work: Work) -> None:
        """Start and feed workers, wait for a message, and collect what has ended."""
        if not self._crew.places:
            work.ended.extend((n, self._unfinished(work.job(n))) for n in work.queue.drain())
            return
        self._crew.hire(work.queue.waiting)
        for _, process in self._crew.staffed():
            self._feed(process, work)
        staff = {process.pipe: (slot, process) for slot, process in self._crew.staffed()}
        for pipe in wait(list(staff)):
            work.ended.extend(self._receive(*staff[pipe], work))  # type: ignore[index]

    def _feed(self, process: WorkerProcess, work: Work) -> None:
        if process.info is None or process.wants is None:
            return
        held, workers = process.held.keys(), self._crew.places
        number = work.queue.take(held, idle=process.wants, workers=workers)
        if number is not None:
            process.deal(work.order(number))

    def _receive(self, slot: Slot, process: WorkerProcess, work: Work) -> list[tuple[int, Outcome]]:
        """Handle a worker's message or death; return what has ended."""
        try:
            message = process.receive()
        except EOFError:
            return self._lose(slot, process, work)
        match message:
            case messages.Done():
                return self._done(slot, process, message)
            case messages.Wants():
                process.wants = message.idle
            case messages.Share() if message.number in process.held:
                process.held[message.number] = message.share
            case messages.Compressed():
                work.compressed(message.number)
            case messages.Logged():
                self._crew.log(process, message)
            case messages.Opened():
                self._crew.admit(slot, process, message.info)
            case messages.Failed():
                self._crew.dismiss(slot, process, f"can't open the network: {message.error}")
        return []

    def _done(
        self, slot: Slot, process: WorkerProcess, done: messages.Done
    ) -> list[tuple[int, Outcome]]:
        process.held.pop(done.number)
        slot.deaths = 0
        self.shows_halo |= done.shows_halo
        self.seams.include(done.seams)
        return [(done.number, done.outcome)]

    def _lose(self, slot: Slot, process: WorkerProcess, work: Work) -> list[tuple[int, Outcome]]:
        """Queue the work of a worker that died; return what failed twice."""
        reason = self._crew.bury(slot, process)
        failed = work.queue.lose(process.held.keys())
        _remove_partial([work.job(number) for number in process.held])
        again = ", ".join(map(work.label, sorted(process.held.keys() - failed)))
        _log.warning("%s%s", self._crew.last_end, f"; trying again: {again}" if again else "")
        return [(n, _failed_twice(work.job(n), work.label(n), reason)) for n in sorted(failed)]

    def _unfinished(self, job: Job) -> Outcome:
        error = f"{job.source}: no worker is left: {self._crew.last_end}"
        return Outcome(job, error, BackendError)


def _options_of_videos(options: InferOptions) -> VideoOptions:
    from agsr.engines.video import VideoOptions

    names = ("sizing", "strip", "max_pixels")
    return VideoOptions(**{name: getattr(options, name) for name in names})


def _failed_twice(job: Job, label: str, reason: str) -> Outcome:
    advice = "; use a smaller --tile or fewer workers" if "memory" in reason else ""
    error = f"{label}: its worker process {reason}, in two attempts{advice}"
    return Outcome(job, error, BackendError)


def _remove_partial(jobs: Sequence[Job]) -> None:
    """Remove what a killed worker has left of these jobs' results."""
    for folder in {job.target.parent for job in jobs}:
        remove_abandoned(folder, again=True)
