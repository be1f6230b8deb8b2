"""Options and outcomes of a batch: they pass between its caller, its loop and worker processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agsr.engines.batch.plan import Job
from agsr.errors import AgsrError
from agsr.image.decode import MAX_PIXELS
from agsr.image.ops.output_size import OutputSize
from agsr.system.text import first_line


def _nothing(_: bytes) -> None:
    """Do nothing; unlike a lambda, it can be pickled."""


@dataclass(frozen=True, kw_only=True)
class InferOptions:
    """Options for all files of a batch."""

    sizing: OutputSize = field(default_factory=OutputSize)
    """Size of the results."""
    quality: int | None = None
    """Quality of lossy formats, 1 to 100."""
    strip: bool = False
    """Remove EXIF, XMP and resolution."""
    max_pixels: int = MAX_PIXELS
    """Inputs with more pixels are rejected."""
    max_result_pixels: int | None = None
    """Larger results are rejected before they are computed; None for no limit."""
    unknown_as_alpha: bool = False
    """See `agsr.image.decode.decode`."""
    stdin_head: bytes = b""
    """Bytes already read from stdin."""
    examine: Callable[[bytes], object] = _nothing
    """Called with the file from stdin before the network runs."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job."""

    job: Job
    error: str | None = None
    """Why there is no result; None on success."""
    kind: type[Exception] | None = None
    """Class of the error that ``error`` describes."""
    size: tuple[int, int] | None = None
    """Height and width of the result."""
    alpha: bool = False
    """Whether the result has alpha."""
    seconds: float | None = field(default=None, compare=False)
    """From the read picture to the written result."""
    nbytes: int | None = field(default=None, compare=False)
    """Bytes of the result."""


def reason_of(job: Job, error: Exception) -> str:
    """Return an error message that starts with the file's name."""
    if isinstance(error, MemoryError):
        return f"{job.source}: out of memory; use a smaller --tile"
    if not isinstance(error, (AgsrError, OSError)):
        return f"{job.source}: {type(error).__name__}: {first_line(error)}"
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    named = message.startswith((str(job.source), str(job.target)))
    return message if named else f"{job.source}: {message}"
