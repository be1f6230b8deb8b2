"""Many files, one after the other: the next is read and the last is written meanwhile.

Three threads hand over one picture at a time, so at most two inputs and two results are in memory,
and every result is what it would be alone. What fails costs one file.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from agsr.decode import MAX_PIXELS, decode
from agsr.encode import encode
from agsr.engines.jobs import STREAM, Job
from agsr.engines.upscaler import Upscaler
from agsr.errors import AgsrError, ImageError
from agsr.image import read_picture, write_picture
from agsr.picture import Picture
from agsr.sizing import Sizing


@dataclass(frozen=True, kw_only=True)
class InferOptions:
    """What is the same for all files of a batch."""

    sizing: Sizing = field(default_factory=Sizing)
    """Size of the results."""
    quality: int | None = None
    """Of lossy formats, 1 to 100."""
    strip: bool = False
    """Leave out EXIF, XMP and resolution."""
    max_pixels: int = MAX_PIXELS
    """Larger inputs fail."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    error: str | None = None
    """Why there is no result; None if there is."""


def process(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    options: InferOptions,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Upscale files.

    Args:
        upscaler: Runs in the caller's thread.
        jobs: From `agsr.engines.jobs.plan`.
        options: For all of them.
        progress: Told how many files are done, with the share of the present one.

    Yields:
        An outcome per job, in order.
    """
    reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
    writing: deque[tuple[Job, Future[None]]] = deque()
    try:
        readings = _one_ahead(reader, jobs, options)
        for number, (job, reading) in enumerate(readings):
            share = _shifted(progress, number)
            written = _upscale_and_write(upscaler, writer, job, reading, options, share)
            share(1)
            writing.append((job, written))
            if len(writing) > 1:
                yield _outcome(*writing.popleft())
        while writing:
            yield _outcome(*writing.popleft())
    finally:
        for pool in (reader, writer):
            pool.shutdown(cancel_futures=True)


def _one_ahead(
    pool: ThreadPoolExecutor, jobs: Sequence[Job], options: InferOptions
) -> Iterator[tuple[Job, Future[Picture]]]:
    """Each job with its picture, while the picture of the next is read."""
    upcoming: deque[tuple[Job, Future[Picture]]] = deque()
    for job in jobs:
        upcoming.append((job, pool.submit(_read, job, options)))
        if len(upcoming) > 1:
            yield upcoming.popleft()
    yield from upcoming


def _upscale_and_write(
    upscaler: Upscaler,
    pool: ThreadPoolExecutor,
    job: Job,
    reading: Future[Picture],
    options: InferOptions,
    progress: Callable[[float], None],
) -> Future[None]:
    """The writing of a result, or what went wrong before."""
    try:
        picture = reading.result()
        result = upscaler.picture(picture, progress, options.sizing)
    except (AgsrError, MemoryError, OSError) as error:
        failed: Future[None] = Future()
        failed.set_exception(error)
        return failed
    return pool.submit(_write, result, job, options)


def _outcome(job: Job, writing: Future[None]) -> Outcome:
    try:
        writing.result()
    except MemoryError:
        return Outcome(job, f"{job.source}: out of memory; use a smaller --tile")
    except (AgsrError, OSError) as error:
        message = str(error)
        named = message.startswith((str(job.source), str(job.target)))
        return Outcome(job, message if named else f"{job.source}: {message}")
    return Outcome(job)


def _read(job: Job, options: InferOptions) -> Picture:
    if job.source != STREAM:
        return read_picture(job.source, options.max_pixels)
    content = sys.stdin.buffer.read()
    if not content:
        raise ImageError("-: nothing came from stdin (0 bytes)")
    return decode(content, "-", options.max_pixels)


def _write(result: Picture, job: Job, options: InferOptions) -> None:
    if options.strip:
        result = replace(result, metadata=result.metadata.stripped())
    if job.target != STREAM:
        write_picture(result, job.target, options.quality)
        return
    sys.stdout.buffer.write(encode(result, job.extension, "-", options.quality))
    sys.stdout.buffer.flush()


def _shifted(progress: Callable[[float], None], done: int) -> Callable[[float], None]:
    return lambda share: progress(done + share)
