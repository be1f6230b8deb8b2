"""TensorRT and TensorRT-RTX behind one import: the same API, for data-centre and for RTX GPUs.

Both are strongly typed: the arithmetic of an engine is that of its ONNX file. Nothing else in this
project imports either; a session's messages are kept by `Messages`, for errors that name a cause.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

from agsr.errors import MissingDependencyError
from agsr.optional import install_command

Flavour = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Import names, the one for data-centre GPUs first."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorRt:
    """An installed TensorRT."""

    module: Any
    """The Python module."""
    flavour: Flavour
    """Which of the two."""

    @property
    def version(self) -> str:
        """Its version, like ``"1.7.1.116"``."""
        return str(self.module.__version__)

    def messages(self) -> Any:
        """A logger for TensorRT's objects that keeps errors; see `last_error`."""
        return _logger_type(self.module)()


def find_tensorrt() -> Flavour:
    """The first TensorRT that is installed, without importing it: that takes a while.

    Raises:
        MissingDependencyError: Neither is.
    """
    for flavour, name in MODULES.items():
        if find_spec(name):
            return flavour
    raise MissingDependencyError(
        "TensorRT is not installed. For an RTX GPU: "
        f"{install_command('rtx')}; for a data-centre GPU: {install_command('gpu')}"
    )


def load_tensorrt() -> TensorRt:
    """Import the first TensorRT that is installed.

    Raises:
        MissingDependencyError: Neither is.
    """
    flavour = find_tensorrt()
    return TensorRt(importlib.import_module(MODULES[flavour]), flavour)


def last_error(messages: Any) -> str:
    """The last error that a logger from `TensorRt.messages` heard, on one line, or "no reason"."""
    return " ".join(messages.errors[-1].split()) if messages.errors else "no reason given"


@cache
def _logger_type(trt: Any) -> type[Any]:
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
    }

    class Messages(trt.ILogger):  # type: ignore[misc]  # a base that is chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(message)
            # Errors reach the user through exceptions; here they are only traced.
            _log.debug("%s: %s", logging.getLevelName(level), message)

    return Messages
