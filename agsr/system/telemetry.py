"""Imports of runtimes with their telemetry off.

ONNX Runtime (1.32 and newer) reads its environment variable on import; unless it is set, it writes
a device id and an event database to the user's cache and looks up a server. ``import openvino``
imports the package ``openvino_telemetry``, which writes an id to the home folder and looks up a
server; without that package, OpenVINO uses a stub that does nothing. Both are switched off for this
process only: the user's settings and files are unchanged.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Final

ORT_VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Environment variable of ONNX Runtime; a value set by the user is respected."""

_REPORTER: Final = "openvino_telemetry"
_LOCK = threading.RLock()


def import_without_telemetry(module: str) -> ModuleType:
    """Import a module; switch off the telemetry of a runtime that has some.

    Raises:
        ImportError: The import failed.
    """
    if module in sys.modules:
        _silence(module)
        return importlib.import_module(module)
    with _LOCK, _telemetry_off():
        return importlib.import_module(module)


def _silence(module: str) -> None:
    """Switch off the telemetry of an ONNX Runtime that the program has already imported."""
    if module == "onnxruntime" and ORT_VARIABLE not in os.environ:
        with suppress(AttributeError):  # older versions
            sys.modules[module].disable_telemetry_events()


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """Set the variable and hide the package within the block."""
    modules: dict[str, Any] = sys.modules
    before = {name: modules[name] for name in (_REPORTER,) if name in modules}
    unset = ORT_VARIABLE not in os.environ
    os.environ.setdefault(ORT_VARIABLE, "1")
    modules[_REPORTER] = None  # makes its import an ImportError
    try:
        yield
    finally:
        del modules[_REPORTER]
        modules.update(before)
        if unset:
            del os.environ[ORT_VARIABLE]
