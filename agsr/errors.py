"""Every error this project raises on purpose.

::

    AgsrError                       a clear message is all the user needs; the CLI exits 1
    ├── RequestError                the request itself is wrong, like an unknown name; exits 2
    ├── MissingDependencyError      an optional package is not installed
    ├── ImageError                  a file can't be read or written as an image
    ├── VideoError                  a file can't be read or written as a video
    ├── CheckpointError             a weights or training-state file is not what it should be
    ├── ModelError                  an ONNX file does not keep the contract
    ├── ExportError                 an export failed its own verification
    ├── BuildError                  a TensorRT engine can't be built
    ├── BackendError                a backend can't run what it was asked to
    ├── DatasetError                a data set is missing or incomplete
    ├── TrainingError               training can't start or go on
    └── LimitError                  something is larger than a limit; has both numbers

The subclasses of `RequestError` are also errors of their subject: an unknown name of weights is a
`ModelError`, too. A request is wrong if no content of any file could make it right. So is one that
names a model, a folder or another resource that isn't there; a missing input costs only itself, and
is no `RequestError`.

Each message says what was found, what was expected, and what to type next.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from json import JSONDecodeError

_JOINERS = "\u200c\u200d"
"""Without width, between letters of some scripts and in emoji."""


class AgsrError(Exception):
    """Base of all errors a user can act on."""


class RequestError(AgsrError):
    """The request is wrong, whatever the files hold: an unknown name, or options in conflict."""


class MissingDependencyError(AgsrError):
    """An optional package is needed but not installed."""


class ImageError(AgsrError):
    """A file can't be read or written as an image."""


class VideoError(AgsrError):
    """A file can't be read or written as a video."""


class CheckpointError(AgsrError):
    """A weights or training-state file is missing, damaged or of another kind."""


class ModelError(AgsrError):
    """An ONNX file does not keep the contract of `agsr.contract`."""


class ExportError(AgsrError):
    """An exported graph failed its verification against torch."""


class BuildError(AgsrError):
    """A TensorRT engine can't be built from what was given."""


class BackendError(AgsrError):
    """A backend can't run what it was asked to run."""


class DatasetError(AgsrError):
    """A data set is missing or incomplete."""


class TrainingError(AgsrError):
    """Training can't start or can't go on."""


class LimitError(AgsrError):
    """Something is larger than a limit; callers that can raise the limit find both numbers here.

    >>> error = LimitError("a.png: 9 pixels, more than 4", path="a.png", limit=4, found=9)
    >>> str(error), error.path, error.limit, error.found
    ('a.png: 9 pixels, more than 4', 'a.png', 4, 9)

    Args:
        message: The whole message.
        path: Name of the file.
        limit: What is allowed or available: pixels or bytes.
        found: What the file has, or the result needs, in the same unit.
    """

    def __init__(self, message: str, *, path: str = "", limit: int = 0, found: int = 0) -> None:
        super().__init__(message)
        self.path, self.limit, self.found = path, limit, found


class ImageTooLargeError(LimitError, ImageError):
    """An image has more pixels than allowed, or its result does not fit into memory or the disk."""


class VideoTooLargeError(LimitError, VideoError):
    """A frame has more pixels than allowed."""


class UnknownWeightsError(RequestError, CheckpointError, ModelError):
    """No shipped weights and no file have this name, or it is that of another kind of file."""


class UnshippedError(RequestError, ModelError):
    """Weights do not ship in this form: for so many steps, or in this precision."""


class UnknownSetError(RequestError, DatasetError):
    """No image set has this name, or no data is where it was said to be."""


class UnfetchedSetError(UnknownSetError):
    """An image set is not here, and can be fetched."""


class BackendRequestError(RequestError, BackendError):
    """No backend or precision has this name, or an option doesn't belong to it."""


class EncodingRequestError(RequestError, VideoError):
    """A codec, its quality or its preset do not exist, or the container can't hold the codec."""


class ImageRequestError(RequestError, ImageError):
    """The names of results make no sense, or a format does not exist or has no such option."""


class ExportRequestError(RequestError, ExportError):
    """The options of an export make no sense, or lack something."""


class HintsError(RequestError, ModelError):
    """Hints on a foreign network can't be understood."""


class BuildRequestError(RequestError, BuildError):
    """The sizes or the target of a build make no sense."""


class ConfigurationError(RequestError, TrainingError):
    """The configuration of a training run makes no sense."""


def check_any(checks: Iterable[Callable[[], object]]) -> None:
    """Run checks until one passes; none at all is fine, too.

    Raises:
        RequestError: Each of them raised one; the first.
    """
    first = None
    for check in checks:
        refusal = _refusal(check)
        if refusal is None:
            return
        first = first or refusal
    if first is not None:
        raise first


def _refusal(check: Callable[[], object]) -> RequestError | None:
    try:
        check()
    except RequestError as error:
        return error
    return None


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add; its type if it is silent."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def in_words(error: BaseException) -> str:
    """What an error of reading a record says, without the names of Python's types."""
    if isinstance(error, KeyError):
        return f"lacks {error.args[0]!r}" if error.args else "lacks an entry"
    if isinstance(error, JSONDecodeError):
        return f"not JSON: {error.msg} in line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "not text"
    return first_line(error)


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 byte``, ``2 bytes``."""
    return f"{number} {noun}" + "s" * (number != 1)


def printable(text: str) -> str:
    """Text as one line that a terminal can show: what would steer it, or is no text, is escaped.

    Names of files may hold anything, and messages repeat them.
    """
    return "".join(char if _is_shown(char) else ascii(char)[1:-1] for char in text)


def without_controls(text: str) -> str:
    """Text in which control characters and line breaks are escaped; all else stays as it is.

    For programs that read a name a line: any other character is part of the name.
    """
    return "".join(ascii(c)[1:-1] if _controls(c) else c for c in text)


def _controls(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Zl", "Zp")


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs" or char in _JOINERS
