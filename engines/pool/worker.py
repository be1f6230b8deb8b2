"""The child's side of a worker: opens the network once, then upscales the files that it is sent.

Data flow: `agsr.engines.pool.messages` from the pipe → results, and messages back. A thread
receives, so a file is read while the network runs on the one before, and notices the parent's end
at any time. Heavy modules are imported after the process is bound to its CPUs.
"""

from __future__ import annotations

import _thread
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, cast

from agsr.engines.pool import messages
from agsr.engines.pool.messages import FINISH, Open, SegmentOrder, Setup, Task
from agsr.errors import BackendError
from agsr.system.cpu_shares import bind, limit_threads
from agsr.system.memory import share_memory
from agsr.system.progress import Progress, ProgressCallback
from agsr.system.signals import GRACE, TERMINATED, terminable
from agsr.system.text import first_line

if TYPE_CHECKING:
    from concurrent.futures import Future

    from agsr.engines.batch.outcome import Outcome
    from agsr.engines.batch.runner import Pipeline
    from agsr.engines.upscaler import Upscaler
    from agsr.engines.video import VideoOptions
    from agsr.engines.video.segment_task import SegmentMaker
    from agsr.image.picture import Picture

_SHARE_EVERY = 0.1
"""Seconds between two messages about the share of a file."""


def serve(pipe: Connection, setup: Setup) -> None:
    """Run in the child until there is no more work, or the parent stops it or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    bind(setup.share.cpus)
    limit_threads(setup.share.threads)
    share_memory(setup.workers)
    link = Link(pipe)
    logging.getLogger().addHandler(_Forward(link))
    logging.getLogger("agsr").setLevel(setup.log_level)
    try:
        with terminable():
            Worker(link).run()
    except KeyboardInterrupt:
        raise SystemExit(TERMINATED) from None


class Link:
    """The pipe to the parent, for several threads. A parent that is gone is not an error."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        self.receive: Callable[[], Any] = pipe.recv

    def send(self, message: object) -> None:
        """Send a message."""
        with self._lock, suppress(OSError):
            self._pipe.send(message)


class _Forward(logging.Handler):
    """Sends log messages to the parent, which prints them as its own."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        self._link.send(messages.Logged(record.name, record.levelno, record.getMessage()))


class Worker:
    """Upscales files and segments, with the network in the thread that calls `run`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._received = queue.SimpleQueue[Any]()
        self._upscaler: Upscaler | None = None
        self._pipeline: Pipeline | None = None
        self._last: Future[Outcome] | None = None
        self._maker: SegmentMaker | None = None
        self._shared = 0.0

    def run(self) -> None:
        """Upscale until the parent ends the work.

        Raises:
            KeyboardInterrupt: The parent stopped it or is gone; complete results were reported.
        """
        threading.Thread(target=self._receive, daemon=True).start()
        request = self._received.get()
        if not isinstance(request, Open) or not self._open(request):
            return
        from agsr.system.quiet_stderr import quiet_decoders

        assert self._upscaler is not None
        with self._upscaler, quiet_decoders():
            from agsr.engines.batch.runner import Pipeline

            with Pipeline(self._upscaler) as self._pipeline:
                self._link.send(messages.Opened(self._upscaler.facts))
                self._work()

    def _receive(self) -> None:
        """Receive in another thread; an image is read as soon as it arrives."""
        try:
            while (message := self._link.receive()) != FINISH:
                if message == messages.STOP:
                    break
                self._received.put(self._begun(message))
            else:
                self._received.put(None)
                return
        except Exception:  # the parent is gone, or died while it sent
            pass
        forced = threading.Timer(GRACE, os._exit, [TERMINATED])
        forced.daemon = True
        forced.start()
        self._received.put(None)
        _thread.interrupt_main(signal.SIGTERM)

    def _begun(self, message: Any) -> Any:
        """Return a message, or an image's task with what returns the decoded image."""
        if not isinstance(message, Task) or message.job.is_video:
            return message
        assert self._pipeline is not None
        options: Any = message.options
        return message, self._pipeline.read(message.job, options)

    def _open(self, request: Open) -> bool:
        """Open the network; report why not."""
        from agsr.engines.upscaler import Upscaler

        def report(phase: str, share: float) -> bool:
            self._link.send(messages.Build(phase, share))
            return True

        try:
            self._upscaler = Upscaler(request.weights, progress=report, **request.options)
        except Exception as error:
            self._link.send(messages.Failed(picklable(error)))
        return self._upscaler is not None

    def _work(self) -> None:
        while True:
            if self._received.empty():
                self._link.send(messages.Wants(idle=True))
            received = self._received.get()
            if received is None:
                return
            self._link.send(messages.Wants(idle=False))
            if isinstance(received, tuple):
                self._image(*received)
            else:
                make = self._segment if isinstance(received, SegmentOrder) else self._video
                self._done(received.number, make(received))

    def _image(self, task: Task, read: Callable[[], Picture]) -> None:
        assert self._pipeline is not None
        before = self._last
        share = partial(self._share, task.number)
        options: Any = task.options
        self._last = self._pipeline.upscale(task.job, read, options, share)
        self._last.add_done_callback(partial(self._written, task.number))
        if before is not None:
            before.result()  # one result at most is written while the next is computed

    def _written(self, number: int, writing: Future[Outcome]) -> None:
        if not writing.cancelled():
            self._done(number, writing.result())

    def _video(self, task: Task) -> Outcome:
        def progress(reached: Progress) -> None:
            self._share(task.number, reached.done / reached.total if reached.total else 0.0)

        assert self._upscaler is not None
        compressed = partial(self._link.send, messages.Compressed(task.number))
        return upscale_one_video(self._upscaler, task, progress, compressed)

    def _segment(self, order: SegmentOrder) -> Outcome:
        from agsr.engines.batch.outcome import Outcome, reason_of
        from agsr.engines.video.segment_task import SegmentMaker
        from agsr.system.quiet_stderr import decoding

        assert self._upscaler is not None
        if self._maker is None:
            self._maker = SegmentMaker(self._upscaler)
        try:
            with decoding():
                self._maker.make(order.task, partial(self._share, order.number))
        except Exception as error:  # any failure affects one file only
            return Outcome(order.job, reason_of(order.job, error), type(error))
        return Outcome(order.job)

    def _share(self, number: int, share: float) -> None:
        now = time.monotonic()
        if now - self._shared >= _SHARE_EVERY:
            self._shared = now
            self._link.send(messages.Share(number, share))

    def _done(self, number: int, outcome: Outcome) -> None:
        assert self._upscaler is not None
        shows_halo, seams = self._upscaler.shows_halo, self._upscaler.seams
        self._link.send(messages.Done(number, outcome, shows_halo, seams))


def upscale_one_video(
    upscaler: Upscaler,
    task: Task,
    progress: ProgressCallback = lambda _: None,
    compressed: Callable[[], None] = lambda: None,
) -> Outcome:
    """Upscale a video; a failure is its outcome."""
    from agsr.engines.batch.outcome import Outcome, reason_of
    from agsr.engines.video import upscale_video
    from agsr.store.locations import local
    from agsr.system.quiet_stderr import decoding

    job, options = task.job, task.options
    source, target, wishes = local(job.source), local(job.target), cast("VideoOptions", options)
    try:
        with decoding():  # encoders print at any time
            size = upscale_video(upscaler, source, target, wishes, progress, compressed)
    except Exception as error:  # any failure affects one file only
        return Outcome(job, reason_of(job, error), type(error))
    return Outcome(job, size=size)


def picklable(error: Exception) -> Exception:
    """Return an error, or one with its message if it can't be sent."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))  # as `Connection.send` and `recv` do
    except Exception:
        return BackendError(f"{type(error).__name__}: {first_line(error)}")
    return error
