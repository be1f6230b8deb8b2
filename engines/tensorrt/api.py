"""TensorRT and TensorRT-RTX behind one import: the same API, for data-centre and for RTX GPUs.

Both are strongly typed: an engine has the precision of its ONNX file. Only this module imports
them. Errors that TensorRT logs become part of our messages.
"""

from __future__ import annotations

import importlib
import logging
from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from threading import Lock, get_ident
from typing import Any, Literal

from agsr.errors import BackendError, MissingDependencyError
from agsr.system.optional_import import install_command

Flavour = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Import names, the one for data-centre GPUs first."""

_MAX_ERRORS = 100
"""Errors that are remembered."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Error:
    number: int
    thread: int
    text: str


@dataclass(frozen=True)
class TensorRt:
    """An installed TensorRT."""

    module: Any
    """The Python module."""
    flavour: Flavour
    """``"tensorrt"`` or ``"tensorrt-rtx"``."""

    @property
    def version(self) -> str:
        """Version, like ``"1.7.1.116"``."""
        return str(self.module.__version__)

    def messages(self) -> Any:
        """Return the logger for all objects of this TensorRT, one per process.

        Its ``count`` is the number of errors so far. ``reason(count)`` returns the last error since
        then, on one line: of this thread if it had any, otherwise of any thread.
        """
        return _messages(self.module)


def is_installed(flavour: Flavour) -> bool:
    """Return True if a TensorRT is installed, without importing it.

    A folder of the same name in the import path, which Python would import as an empty namespace
    package, does not count.
    """
    spec = find_spec(MODULES[flavour])
    return spec is not None and spec.origin is not None


def find_tensorrt() -> Flavour:
    """Find the first TensorRT that is installed, without importing it, which is slow.

    Raises:
        MissingDependencyError: Neither is installed.
    """
    for flavour in MODULES:
        if is_installed(flavour):
            return flavour
    raise MissingDependencyError(
        "TensorRT is not installed. For an RTX GPU: "
        f"{install_command('rtx')}; for a data-centre GPU: {install_command('gpu')}"
    )


def load_tensorrt() -> TensorRt:
    """Import the first TensorRT that is installed.

    Raises:
        MissingDependencyError: Neither is installed.
    """
    flavour = find_tensorrt()
    return TensorRt(importlib.import_module(MODULES[flavour]), flavour)


def load_engine(trt: TensorRt, content: bytes, *, host_code: bool) -> Any:
    """Deserialize an engine for the current GPU.

    Args:
        trt: TensorRT to use.
        content: Serialized engine.
        host_code: Whether the engine may run code on the host, as version-compatible engines do.

    Raises:
        BackendError: It can't be loaded; the message is TensorRT's reason.
    """
    messages = trt.messages()
    started = messages.count
    runtime = trt.module.Runtime(messages)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise BackendError(messages.reason(started))
    return engine


@cache
def _messages(trt: Any) -> Any:
    """Return the logger of a TensorRT module, which uses the first it is given for all objects."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
    }

    class Messages(trt.ILogger):  # type: ignore[misc]  # the base is chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.count = 0
            self._lock = Lock()
            self._errors: deque[_Error] = deque(maxlen=_MAX_ERRORS)

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                with self._lock:
                    self.count += 1
                    self._errors.append(_Error(self.count, get_ident(), message))
            # Errors reach the user through exceptions; here they are only logged for debugging.
            _log.debug("%s: %s", logging.getLevelName(level), message)

        def reason(self, since: int) -> str:
            with self._lock:
                errors = [error for error in self._errors if error.number > since]
            own = [error for error in errors if error.thread == get_ident()]
            found = (own or errors)[-1:]
            return " ".join(found[0].text.split()) if found else "no reason given"

    return Messages()
