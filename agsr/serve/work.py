"""What a worker thread does with a job: the same calls as ``agsr infer``, and their warnings.

Data flow: the uploaded file → `agsr.engines.batch.runner.process` or
`agsr.engines.video.upscale_video` → the result's file beside it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from agsr.engines.batch.headers import file_compression
from agsr.engines.batch.plan import Job as FileJob
from agsr.engines.batch.runner import InferOptions, Outcome, process, reason_of
from agsr.engines.upscaler import Upscaler
from agsr.errors import RequestError
from agsr.pretrained import WEIGHTS_FOR_FAULTS
from agsr.serve.job import Hint, Job, StoppedError
from agsr.serve.settings import ServeSettings
from agsr.system.progress import Progress, ProgressCallback
from agsr.system.text import printable

_messages: ContextVar[list[str] | None] = ContextVar("messages", default=None)


@dataclass(frozen=True)
class Done:
    """Outcome of a job."""

    size: tuple[int, int] | None
    """Height and width of the result; None if there is none."""
    kind: type[Exception] | None = None
    error: str = ""


class _Collector(logging.Handler):
    """Collects the warnings of a job; other messages go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record."""
        messages = _messages.get()
        if messages is not None:
            messages.append(record.getMessage())
        else:
            for line in self.format(record).splitlines():
                print(printable(line), file=sys.stderr)  # noqa: T201  # the server's log


@contextmanager
def collected_warnings() -> Iterator[None]:
    """Let the warnings of each job reach `Job.warnings` within the block."""
    logger, collector = logging.getLogger("agsr"), _Collector(logging.WARNING)
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)


def upscale_file(upscaler: Upscaler, job: Job, settings: ServeSettings) -> Done:
    """Upscale a job's file; called in a worker's thread.

    Raises:
        StoppedError: The job was cancelled.
    """
    try:
        sizing = job.options.sizing.for_network(upscaler.info.scale)
    except ValueError as error:
        return Done(None, RequestError, str(error))
    job.options = replace(job.options, sizing=sizing)  # which names the result
    messages: list[str] = []
    before = _messages.set(messages)
    try:
        done = _video(upscaler, job, settings) if job.is_video else _image(upscaler, job, settings)
    finally:
        _messages.reset(before)
        job.warnings = [job.plain(message) for message in dict.fromkeys(messages)]
    if job.stop.is_set() and done.size is None:
        raise StoppedError
    return done


def _image(upscaler: Upscaler, job: Job, settings: ServeSettings) -> Done:
    asked = job.options
    kind = file_compression(job.source) if _may_be_hinted(job, settings) else None
    if kind is not None and kind.strong:
        job.hint = Hint(job.name, asked.weights, str(kind))
    options = InferOptions(
        sizing=asked.sizing,
        quality=asked.quality,
        strip=asked.strip,
        max_pixels=settings.max_pixels,
        max_result_pixels=settings.max_result_pixels,
        unknown_as_alpha=asked.separate_alpha or asked.normal_map,
    )
    files = [FileJob(job.source, job.target, job.extension)]
    outcome: Outcome
    (outcome,) = process(upscaler, files, options, _reporting(job))
    if outcome.size is None:
        return Done(None, outcome.kind or Exception, outcome.error or "")
    return Done(outcome.size)


def _video(upscaler: Upscaler, job: Job, settings: ServeSettings) -> Done:
    from agsr.engines.video import VideoOptions, upscale_video

    asked = job.options
    options = VideoOptions(
        sizing=asked.sizing,
        codec=asked.codec,
        crf=asked.crf,
        preset=asked.preset,
        strip=asked.strip,
        max_pixels=settings.max_pixels,
    )

    def note() -> None:
        if _may_be_hinted(job, settings):
            job.hint = Hint(job.name, asked.weights)

    try:
        return Done(upscale_video(upscaler, job.source, job.target, options, _reporting(job), note))
    except Exception as error:  # any failure affects one file only
        return Done(None, type(error), reason_of(FileJob(job.source, job.target, ""), error))


def _may_be_hinted(job: Job, settings: ServeSettings) -> bool:
    """Return True if a request may name `WEIGHTS_FOR_FAULTS`, and names others."""
    return job.options.weights != WEIGHTS_FOR_FAULTS and WEIGHTS_FOR_FAULTS in settings.names


def _reporting(job: Job) -> ProgressCallback:
    """Return a callback that reports the share of a job's file.

    The end is not reported: the loops report it for a file that failed, too, and a result is not
    complete before it is written.
    """

    def report(progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 0.0
        job.progress(share if share < 1 else job.share)

    return report
