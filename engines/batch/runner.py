"""Upscale many files; the next is read and the previous written while the network runs.

Three threads: one reads, one file ahead; the caller's runs the network; one writes. Results pass to
the writer band by band, so for PNG and TIFF a few bands are in memory, for other formats what
Pillow needs for one picture. Each result is the same as when upscaled alone; a failure affects one
file.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain

from agsr.engines.batch.outcome import InferOptions, Outcome, reason_of
from agsr.engines.batch.plan import STREAM, Job
from agsr.engines.batch.stdio import PIPED, Stdin, write_image
from agsr.engines.concurrency import Channel, ContextPool
from agsr.engines.preflight import check_picture_target, check_result
from agsr.engines.upscaler import Upscaler
from agsr.errors import AgsrError, ImageError
from agsr.image import read_picture, write_row_bands
from agsr.image.decode import decode
from agsr.image.ops.normal_map import doubt
from agsr.image.picture import Picture, RowBands
from agsr.system.progress import ProgressCallback, ShareCallback, within

__all__ = ["InferOptions", "Outcome", "Pipeline", "process", "reason_of"]

_log = logging.getLogger(__name__)


def process(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    options: InferOptions,
    progress: ProgressCallback = lambda _: None,
) -> Generator[Outcome]:
    """Upscale files; a failure affects only its own file.

    Args:
        upscaler: Runs in the caller's thread.
        jobs: From `agsr.engines.batch.plan.plan`.
        options: For all of them.
        progress: Called after each tile with the progress over all files. An exception that it
            raises during a file ends that file, as any other failure does.

    Yields:
        An outcome per job, in order.

    Raises:
        KeyboardInterrupt: After yielding the outcomes of complete results. One that interrupts the
            caller may be thrown into the generator to get them.
    """
    writing: deque[Future[Outcome]] = deque()
    with Pipeline(upscaler) as pipeline:
        try:
            for number, (job, read) in enumerate(_one_ahead(pipeline, jobs, options)):
                share = within(progress, len(jobs), number)
                writing.append(pipeline.upscale(job, read, options, share))
                share(1)
                yield from _ended(writing, but=1)
            yield from _ended(writing)
        except KeyboardInterrupt:
            yield from _ended(writing)
            raise


def _ended(writing: deque[Future[Outcome]], but: int = 0) -> Iterator[Outcome]:
    """Yield outcomes except the last ``but``; each leaves the queue when it is known."""
    while len(writing) > but:
        outcome = writing[0].result()
        writing.popleft()
        yield outcome


def _one_ahead(
    pipeline: Pipeline, jobs: Sequence[Job], options: InferOptions
) -> Iterator[tuple[Job, Callable[[], Picture]]]:
    """Yield each job with a function that returns its picture; the next is read meanwhile."""
    upcoming: deque[tuple[Job, Callable[[], Picture]]] = deque()
    for job in jobs:
        upcoming.append((job, pipeline.read(job, options)))
        if len(upcoming) > 1:
            yield upcoming.popleft()
    yield from upcoming


class Pipeline:
    """Reads and writes files in other threads while the caller's runs the network.

    Args:
        upscaler: Runs in the thread that calls `upscale`.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler
        self._reader, self._writer = ContextPool(1, "read"), ContextPool(1, "write")
        self._last: Future[Outcome] | None = None

    def read(self, job: Job, options: InferOptions) -> Callable[[], Picture]:
        """Start to read a job's picture; return a function that waits for it."""
        reading = partial(_read, job, self._adapted(options))
        # A thread that waits for stdin can't be interrupted, except the caller's.
        return reading if job.source == STREAM else self._reader.submit(reading).result

    def upscale(
        self,
        job: Job,
        read: Callable[[], Picture],
        options: InferOptions,
        progress: ShareCallback,
    ) -> Future[Outcome]:
        """Upscale a job; return the future outcome of writing it.

        Args:
            job: The job.
            read: From `read`.
            options: As for `read`.
            progress: Called after each tile.
        """
        options = self._adapted(options)
        before = [] if self._last is None else [self._last]
        begin = partial(_begin, self._upscaler, job, read, options, before, progress)
        self._last = _upscale_and_write(begin, self._writer, job, options)
        return self._last

    def _adapted(self, options: InferOptions) -> InferOptions:
        scale = self._upscaler.info.scale
        return replace(options, sizing=options.sizing.for_network(scale))

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._reader, self._writer):
            pool.shutdown(cancel_futures=True)


def _begin(
    upscaler: Upscaler,
    job: Job,
    read: Callable[[], Picture],
    options: InferOptions,
    writing: Iterable[Future[Outcome]],
    progress: ShareCallback,
) -> RowBands:
    """Return a job's result, not yet computed; raise if memory or disk are too small for it."""
    picture = read()
    if upscaler.normal_map and (warning := doubt(picture)):
        _log.warning("%s: %s", job.source, warning)
    if options.strip:
        picture = replace(picture, metadata=picture.metadata.stripped())
    row_bands = upscaler.row_bands(picture, progress, options.sizing)
    target = None if job.target == STREAM else job.target
    check_result(
        *(str(job.source), target, job.extension, row_bands),
        lambda: wait(writing),
        scale=upscaler.info.scale,
    )
    return row_bands


def _upscale_and_write(
    begin: Callable[[], RowBands], pool: ThreadPoolExecutor, job: Job, options: InferOptions
) -> Future[Outcome]:
    """Upscale a job and return the future outcome of writing it."""
    began = time.monotonic()
    try:
        row_bands = begin()
        with closing(row_bands):
            first = next(row_bands.bands)  # an early failure doesn't even create a folder
            made = chain([first], row_bands.bands)
            return _hand_over(row_bands, made, pool, job, options, began)
    except Exception as error:  # any failure affects one file only
        failed: Future[Outcome] = Future()
        failed.set_result(Outcome(job, reason_of(job, error), type(error)))
        error.with_traceback(None)  # avoids a reference cycle of error and frame
        return failed


def _hand_over(
    row_bands: RowBands,
    made: Iterator[Picture],
    pool: ThreadPoolExecutor,
    job: Job,
    options: InferOptions,
    began: float,
) -> Future[Outcome]:
    """Compute the bands of a result while another thread writes them."""
    bands: Channel[Picture] = Channel()
    # The writer's thread closes its bands, and must not close the network's.
    result = replace(row_bands, bands=bands, source=None)
    error: Exception | None = ImageError(f"{job.source}: interrupted")
    try:
        written = pool.submit(_written, result, bands.cancel, job, options, began)
        error = _put_all(made, bands, job)
    finally:
        bands.close(error)
    return written


def _put_all(made: Iterator[Picture], bands: Channel[Picture], job: Job) -> Exception | None:
    """Pass bands to the writer until it stops; return the error that ended their computation."""
    try:
        for band in made:
            if not bands.put(band):
                break
    except Exception as failure:  # any failure affects one file only
        failure.with_traceback(None)
        if isinstance(failure, (AgsrError, MemoryError)):
            return failure
        return ImageError(reason_of(job, failure))  # not to be mistaken for one of the writer
    return None


def _written(
    result: RowBands, cancel: Callable[[], None], job: Job, options: InferOptions, began: float
) -> Outcome:
    try:
        nbytes = _write(result, job, options)
    except Exception as error:  # any failure affects one file only
        return Outcome(job, reason_of(job, error), type(error))
    finally:
        cancel()
    size, seconds = (result.height, result.width), time.monotonic() - began
    return Outcome(job, size=size, alpha=result.opacity, seconds=seconds, nbytes=nbytes)


def _read(job: Job, options: InferOptions) -> Picture:
    """Read a job's picture, after checking that its result can be written."""
    if job.problem is not None:
        raise ImageError(job.problem)
    if job.source == STREAM:
        picture = _read_stream(options)
    else:
        unknown = options.unknown_as_alpha
        picture = read_picture(job.source, options.max_pixels, unknown_as_alpha=unknown)
    result = options.sizing.result(*picture.pixels.shape[:2])
    name, target = str(job.source), None if job.target == STREAM else job.target
    most = options.max_result_pixels
    check_picture_target(job.source, target, name, job.extension, result, most)
    return picture


def _read_stream(options: InferOptions) -> Picture:
    content = options.stdin_head + b"".join(iter(partial(Stdin().read, PIPED), b""))
    if not content:
        raise ImageError("-: stdin is empty (0 bytes)")
    options.examine(content)
    return decode(content, "-", options.max_pixels, unknown_as_alpha=options.unknown_as_alpha)


def _write(result: RowBands, job: Job, options: InferOptions) -> int | None:
    if job.target != STREAM:
        return write_row_bands(result, job.target, options.quality)
    write_image(result, job.extension, options.quality)
    return None
