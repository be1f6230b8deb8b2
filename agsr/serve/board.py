"""The queue and the jobs: admits, runs, cancels and expires them, within bounds.

Everything here runs in the event loop, except `_run`, which worker threads call.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from agsr.errors import AgsrError
from agsr.serve.job import Job, State, StoppedError
from agsr.serve.metrics import Metrics
from agsr.serve.problems import Problem, problem_of
from agsr.serve.settings import ServeSettings
from agsr.serve.work import Done
from agsr.system.text import first_line
from agsr.system.time_left import TimeLeft

SWEEP_SECONDS = 5.0
"""Between two searches for expired results."""

MOST_ENDED = 1000
"""Jobs without a result that are remembered; the oldest are forgotten."""

FETCH_SECONDS = 10.0
"""After a signal, how long results of jobs wait to be fetched."""

_log = logging.getLogger(__name__)

Work = Callable[[Job], Done]


class Board:
    """All jobs of a server.

    Args:
        settings: Its limits.
        spool: Private folder for the files.
        work: Does a job; called in a worker's thread.
        metrics: Counts.
    """

    def __init__(self, settings: ServeSettings, spool: Path, work: Work, metrics: Metrics) -> None:
        self._settings, self._spool, self._work, self._metrics = settings, spool, work, metrics
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(settings.workers)
        self._pool = ThreadPoolExecutor(settings.workers, "upscale")
        self._receiving = 0
        self._seconds = 5.0  # that a job takes, a moving average
        self.draining = False
        """Whether new work is refused, since the server is going to stop."""
        self._drained_at: float | None = None

    def find(self, number: str) -> Job:
        """Return a job by its id.

        Raises:
            Problem: There is none, or it has expired.
        """
        job = self._jobs.get(number)
        if job is None or not job.is_kept:
            raise Problem(404, "no_job", "no job has this id; it may have expired")
        return job

    @contextmanager
    def place(self, expected: int) -> Iterator[Path]:
        """Reserve a place in the queue while an upload arrives; yields a folder for its file.

        The folder is removed at the end unless `submit` was called with it.

        Args:
            expected: Bytes of the upload, as far as known.

        Raises:
            Problem: The queue or the disk is full, or the server is stopping.
        """
        self._check_room(expected)
        folder = self._spool / secrets.token_hex(16)
        self._receiving += 1
        self._count()
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            self._receiving -= 1
            if all(job.folder != folder for job in self._jobs.values()):
                shutil.rmtree(folder, ignore_errors=True)
            self._count()

    def _check_room(self, expected: int) -> None:
        if self.draining:
            raise Problem(503, "stopping", "the server is stopping", {"Retry-After": "10"})
        if self.waiting + self.running >= self._settings.queue + self._settings.workers:
            seconds = self._seconds * (self.waiting + 1) / self._settings.workers
            raise Problem(
                429,
                "queue_full",
                f"{self.waiting} files are waiting already; try again later",
                {"Retry-After": str(max(1, min(300, round(seconds))))},
            )
        if self.disk + expected > self._settings.max_disk:
            raise Problem(
                503,
                "disk_full",
                "the disk space for uploads and results is used up; delete jobs that are done, or "
                "try again when some have expired",
                {"Retry-After": "60"},
            )

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker, and uploads that arrive."""
        return self._receiving + sum(job.state is State.QUEUED for job in self._jobs.values())

    @property
    def running(self) -> int:
        """Jobs that run, cancelled ones included until their worker is free."""
        return sum(job.left is not None for job in self._jobs.values())

    @property
    def disk(self) -> int:
        """Bytes of all files."""
        return sum(job.bytes for job in self._jobs.values())

    def position(self, job: Job) -> int | None:
        """Return a job's position in the queue, from 1; None if it does not wait."""
        waiting = [found for found in self._jobs.values() if found.state is State.QUEUED]
        return waiting.index(job) + 1 if job in waiting else None

    def submit(self, job: Job) -> None:
        """Take a job into the queue."""
        self._jobs[job.id] = job
        job.bytes = job.source.stat().st_size
        task = asyncio.create_task(self._drive(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._count()

    async def _drive(self, job: Job) -> None:
        """Wait for a worker, let it do the job, and record the outcome."""
        queued = time.monotonic()
        async with self._turns:
            if job.state is State.QUEUED:
                self._metrics.seconds("wait", time.monotonic() - queued)
                job.state, job.left = State.RUNNING, TimeLeft(1.0)
                self._count()
                await self._run_in_thread(job)
                job.left = None
        self._close(job)

    async def _run_in_thread(self, job: Job) -> None:
        began = time.monotonic()
        done = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, job)
        seconds = time.monotonic() - began
        self._seconds += (seconds - self._seconds) / 5
        if job.state.final:  # cancelled meanwhile
            return
        if done is None:
            job.state = State.CANCELLED
        elif done.size is None:
            job.state = State.FAILED
            job.problem = problem_of(done.kind or Exception, job.plain(done.error))
            if job.problem.code == "internal":
                _log.error("%s", done.error)
        else:
            job.result_size, job.share, job.state = done.size, 1.0, State.DONE
            self._metrics.pixels(job.size, done.size)
            self._metrics.seconds("work", seconds)

    def _run(self, job: Job) -> Done | None:
        """Do a job in a worker's thread; None if it was cancelled."""
        try:
            return self._work(job)
        except StoppedError:
            return None
        except Exception as error:  # any failure affects one job only
            if not isinstance(error, (AgsrError, MemoryError)):
                _log.exception("a job failed")
            return Done(None, type(error), first_line(error))

    def _close(self, job: Job) -> None:
        """Settle a job, once: its source is no longer needed, and its result will expire."""
        if job.settled:
            return
        job.settled = True
        self._metrics.job(job.state.value)
        if job.state is State.DONE and job.id in self._jobs:
            job.source.unlink(missing_ok=True)
            job.bytes = job.target.stat().st_size
            job.expires = time.time() + 60 * self._settings.keep_minutes
        else:
            job.bytes, job.fetched = 0, True
            job.expires = time.time() + 60 * self._settings.keep_minutes
            shutil.rmtree(job.folder, ignore_errors=True)
        job.finished.set()
        if not job.is_kept and job.state is not State.DONE:
            self._jobs.pop(job.id, None)
        self._forget_surplus()
        self._count()

    def _forget_surplus(self) -> None:
        """Forget jobs that ended without a result long ago; their clients know, or don't ask."""
        ended = [j.id for j in self._jobs.values() if j.settled and j.state is not State.DONE]
        for number in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._jobs[number]

    def cancel(self, job: Job) -> None:
        """Cancel a job, if it is not finished; a running one ends after its current tile."""
        if not job.state.final:
            job.stop.set()
            running = job.state is State.RUNNING
            job.state = State.CANCELLED
            if not running:
                self._close(job)
            job.finished.set()

    def remove(self, job: Job) -> None:
        """Cancel and forget a job; its files go when its worker is free."""
        self.cancel(job)
        job.is_kept = False
        if job.left is None:
            self._jobs.pop(job.id, None)
            shutil.rmtree(job.folder, ignore_errors=True)
        self._count()

    def delete(self, job: Job) -> None:
        """Cancel a job that is not finished, whose state is kept, or remove one that is."""
        if job.state.final:
            self.remove(job)
        else:
            self.cancel(job)

    async def sweep(self) -> None:
        """Remove expired jobs, for ever."""
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._settings.keep_minutes * 20))
            self.expire()

    def expire(self) -> None:
        """Remove the jobs that have expired."""
        now = time.time()
        for job in list(self._jobs.values()):
            if job.expires is not None and job.expires <= now:
                self.remove(job)

    def drain(self) -> None:
        """Refuse new work, cancel jobs that wait, and let the running ones finish."""
        self.draining = True
        for job in list(self._jobs.values()):
            if job.state is State.QUEUED:
                job.problem = Problem(503, "stopping", "the server is stopping")
                self.cancel(job)

    def cancel_all(self) -> None:
        """Cancel all jobs that are not finished."""
        for job in list(self._jobs.values()):
            self.cancel(job)

    @property
    def drained(self) -> bool:
        """Whether nothing runs any more, and recent results had time to be fetched."""
        if self.running or self._receiving:
            self._drained_at = None
            return False
        self._drained_at = self._drained_at or time.monotonic()
        wanted = any(j.state is State.DONE and not j.fetched for j in self._jobs.values())
        return not wanted or time.monotonic() - self._drained_at > FETCH_SECONDS

    async def close(self) -> None:
        """Cancel what is left, and wait for the workers."""
        self.cancel_all()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        with suppress(RuntimeError):
            self._pool.shutdown()

    def _count(self) -> None:
        self._metrics.queue(self.waiting, self.running, self.disk)
