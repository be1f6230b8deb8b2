"""Exceptions of this package.

::

    AgsrError                           message suffices for the user; exit code 1
    ├── RequestError                    invalid request, whatever the files hold; exit code 2
    │   ├── UnknownWeightsError         also CheckpointError and ModelError
    │   ├── UnshippedError              also ModelError
    │   ├── UnknownSetError             also DatasetError
    │   │   └── UnfetchedSetError
    │   ├── BackendRequestError         also BackendError
    │   ├── EncodingRequestError        also VideoError
    │   ├── ImageRequestError           also ImageError
    │   ├── ExportRequestError          also ExportError
    │   ├── HintsError                  also ModelError
    │   ├── BuildRequestError           also BuildError
    │   └── ConfigurationError          also TrainingError
    ├── MissingDependencyError          optional package not installed
    ├── ImageError                      file can't be read or written as an image
    ├── VideoError                      file can't be read or written as a video
    ├── CheckpointError                 weights or training state missing or damaged
    ├── ModelError                      ONNX file violates `agsr.contract`
    ├── ExportError                     export failed its verification
    ├── BuildError                      TensorRT engine can't be built
    ├── BackendError                    backend can't run the request
    │   └── ServerError                 server that computes can't be reached, or doesn't answer
    ├── DatasetError                    data set missing or incomplete
    ├── TrainingError                   training can't start or continue
    └── LimitError                      larger than a limit; carries path, limit and found
        ├── ImageTooLargeError          also ImageError
        └── VideoTooLargeError          also VideoError

A request is invalid if no file content could make it valid, or if it names a model, folder or other
resource that doesn't exist. A missing input file affects only itself and is not a `RequestError`.

Each message gives what was found, what was expected, and what to type next.

>>> try:
...     raise UnknownWeightsError("no weights named 'psnrr'; shipped: psnr")
... except AgsrError as error:
...     print(f"Error: {error}")
Error: no weights named 'psnrr'; shipped: psnr
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = [
    "AgsrError",
    "BackendError",
    "BackendRequestError",
    "BuildError",
    "BuildRequestError",
    "CheckpointError",
    "ConfigurationError",
    "DatasetError",
    "EncodingRequestError",
    "ExportError",
    "ExportRequestError",
    "HintsError",
    "ImageError",
    "ImageRequestError",
    "ImageTooLargeError",
    "LimitError",
    "MissingDependencyError",
    "ModelError",
    "RequestError",
    "ServerError",
    "TrainingError",
    "UnfetchedSetError",
    "UnknownSetError",
    "UnknownWeightsError",
    "UnshippedError",
    "VideoError",
    "VideoTooLargeError",
    "check_any",
]


class AgsrError(Exception):
    """Base class of all errors that a user can act on."""


class RequestError(AgsrError):
    """The request is invalid, whatever the files hold: an unknown name or conflicting options."""


class MissingDependencyError(AgsrError):
    """A required optional package is not installed."""


class ImageError(AgsrError):
    """A file can't be read or written as an image."""


class VideoError(AgsrError):
    """A file can't be read or written as a video."""


class CheckpointError(AgsrError):
    """A weights or training-state file is missing, damaged or of another kind."""


class ModelError(AgsrError):
    """An ONNX file violates `agsr.contract`."""


class ExportError(AgsrError):
    """An exported graph failed its verification against torch."""


class BuildError(AgsrError):
    """A TensorRT engine can't be built from the given file and options."""


class BackendError(AgsrError):
    """A backend can't run the request."""


class ServerError(BackendError):
    """The server that computes can't be reached, or doesn't answer in time."""


class DatasetError(AgsrError):
    """A data set is missing or incomplete."""


class TrainingError(AgsrError):
    """Training can't start or continue."""


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
    """No shipped weights and no file have this name, or the file is of another kind."""


class UnshippedError(RequestError, ModelError):
    """Weights are not shipped in this form: for this step count, or in this precision."""


class UnknownSetError(RequestError, DatasetError):
    """No image set has this name, or the data folder doesn't exist."""


class UnfetchedSetError(UnknownSetError):
    """An image set is missing, but can be fetched."""


class BackendRequestError(RequestError, BackendError):
    """No backend or precision has this name, or it doesn't support an option."""


class EncodingRequestError(RequestError, VideoError):
    """A codec, quality or preset doesn't exist, or a container can't hold what it would get."""


class ImageRequestError(RequestError, ImageError):
    """Names of results are invalid, or a format doesn't exist or lacks an option."""


class ExportRequestError(RequestError, ExportError):
    """The options of an export are invalid or incomplete."""


class HintsError(RequestError, ModelError):
    """Hints about a foreign network are invalid."""


class BuildRequestError(RequestError, BuildError):
    """The sizes or the target of a build are invalid."""


class ConfigurationError(RequestError, TrainingError):
    """The configuration of a training run is invalid."""


def check_any(checks: Iterable[Callable[[], object]]) -> None:
    """Run checks until one passes; without checks, pass.

    Raises:
        RequestError: The first error, if every check raised one.

    >>> def reject() -> None:
    ...     raise BackendRequestError("trt has no option threads; remove it")
    >>> check_any([reject, lambda: None])
    """
    first = None
    for check in checks:
        error = _request_error(check)
        if error is None:
            return
        first = first or error
    if first is not None:
        raise first


def _request_error(check: Callable[[], object]) -> RequestError | None:
    try:
        check()
    except RequestError as error:
        return error
    return None
