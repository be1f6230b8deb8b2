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
    └── TrainingError               training can't start or go on

The subclasses of `RequestError` are also errors of their subject: an unknown name of weights is a
`ModelError`, too. A file that is missing or can't be used is no `RequestError`.

Each message says what was found, what was expected, and what to type next.
"""

from __future__ import annotations

import unicodedata

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


class UnknownWeightsError(RequestError, CheckpointError, ModelError):
    """No shipped weights have this name."""


class UnknownSetError(RequestError, DatasetError):
    """No image set has this name."""


class BackendRequestError(RequestError, BackendError):
    """No backend or precision has this name, or an option doesn't belong to it."""


class HintsError(RequestError, ModelError):
    """Hints on a foreign network can't be understood."""


class BuildRequestError(RequestError, BuildError):
    """The sizes or the target of a build make no sense."""


class ConfigurationError(RequestError, TrainingError):
    """The configuration of a training run makes no sense."""


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add; its type if it is silent."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def printable(text: str) -> str:
    """Text as one line that a terminal can show: what would steer it, or is no text, is escaped.

    Names of files may hold anything, and messages repeat them.
    """
    return "".join(char if _is_shown(char) else ascii(char)[1:-1] for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs" or char in _JOINERS
