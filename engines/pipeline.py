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
from functools import partial

from agsr.atomic import check_writable
from agsr.decode import MAX_PIXELS, decode
from agsr.encode import check_size, encode
from agsr.engines.jobs import STREAM, Job
from agsr.engines.upscaler import Upscaler
from agsr.errors import AgsrError, ImageError, first_line
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
    size: tuple[int, int] | None = None
    """Height and width of the result."""


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
    writing: deque[Future[Outcome]] = deque()
    try:
        readings = _one_ahead(reader, jobs, options)
        for number, (job, read) in enumerate(readings):
            share = _shifted(progress, number)
            written = _upscale_and_write(upscaler, writer, job, read, options, share)
            share(1)
            writing.append(written)
            if len(writing) > 1:
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        for pool in (reader, writer):
            pool.shutdown(cancel_futures=True)


def _one_ahead(
    pool: ThreadPoolExecutor, jobs: Sequence[Job], options: InferOptions
) -> Iterator[tuple[Job, Callable[[], Picture]]]:
    """Each job with what gives its picture, while the picture of the next is read."""
    upcoming: deque[tuple[Job, Callable[[], Picture]]] = deque()
    for job in jobs:
        reading = partial(_read, job, options)
        # Nobody can interrupt a thread that waits for stdin, but the caller's own.
        streamed = job.source == STREAM
        upcoming.append((job, reading if streamed else pool.submit(reading).result))
        if len(upcoming) > 1:
            yield upcoming.popleft()
    yield from upcoming


def _upscale_and_write(
    upscaler: Upscaler,
    pool: ThreadPoolExecutor,
    job: Job,
    read: Callable[[], Picture],
    options: InferOptions,
    progress: Callable[[float], None],
) -> Future[Outcome]:
    """What becomes of a job, once its result is written."""
    try:
        result = upscaler.picture(read(), progress, options.sizing)
    except Exception as error:  # whatever it is, it costs one file
        failed: Future[Outcome] = Future()
        failed.set_result(Outcome(job, _reason(job, error)))
        error.with_traceback(None)  # a reading's error and this frame would keep each other
        return failed
    return pool.submit(_written, result, job, options)


def _written(result: Picture, job: Job, options: InferOptions) -> Outcome:
    try:
        _write(result, job, options)
    except Exception as error:  # whatever it is, it costs one file
        return Outcome(job, _reason(job, error))
    return Outcome(job, size=result.pixels.shape[:2])


def _reason(job: Job, error: Exception) -> str:
    """What went wrong, behind the file's name."""
    if isinstance(error, MemoryError):
        return f"{job.source}: out of memory; use a smaller --tile"
    if not isinstance(error, (AgsrError, OSError)):
        return f"{job.source}: {type(error).__name__}: {first_line(error)}"
    message = str(error)
    named = message.startswith((str(job.source), str(job.target)))
    return message if named else f"{job.source}: {message}"


def _read(job: Job, options: InferOptions) -> Picture:
    """A job's picture, if its result can be written."""
    if job.problem is not None:
        raise ImageError(job.problem)
    if job.source == STREAM:
        picture = _read_stream(options.max_pixels)
    else:
        picture = read_picture(job.source, options.max_pixels)
    result = options.sizing.result(*picture.pixels.shape[:2])
    check_size(str(job.source), job.extension, *result)
    if job.target != STREAM:
        _check_target(job)
    return picture


def _check_target(job: Job) -> None:
    """Find out before long work whether a result can be written."""
    try:
        # However it is called: through a hard link, or where upper and lower case are one.
        if job.target.exists() and job.source.exists() and job.target.samefile(job.source):
            raise ImageError(f"{job.source}: {job.target} is the same file; use -o or --suffix")
        check_writable(job.target)
    except OSError as error:
        raise ImageError(f"{job.target}: can't be written: {error.strerror}") from None


def _read_stream(max_pixels: int) -> Picture:
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()
    if not content:
        raise ImageError("-: nothing came from stdin (0 bytes)")
    return decode(content, "-", max_pixels)


def _write(result: Picture, job: Job, options: InferOptions) -> None:
    if options.strip:
        result = replace(result, metadata=result.metadata.stripped())
    if job.target != STREAM:
        write_picture(result, job.target, options.quality)
        return
    _write_stream(encode(result, job.extension, "-", options.quality))


def _write_stream(content: bytes) -> None:
    if sys.stdout is None:
        raise ImageError("-: stdout is closed")
    left = memoryview(content)
    try:
        while left:  # without a buffer (PYTHONUNBUFFERED) a part may be written, and no error told
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()
    except OSError as error:
        raise ImageError(f"-: can't be written: {error.strerror}") from None


def _shifted(progress: Callable[[float], None], done: int) -> Callable[[float], None]:
    return lambda share: progress(done + share)
