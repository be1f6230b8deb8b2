"""Loading runtimes that report their use to their makers, so that they report nothing.

ONNX Runtime (1.32 and newer) looks for its environment variable when it is loaded; unless that is
set it writes a device id and an event database into the user's cache and looks up a server.
``import openvino`` loads the package ``openvino_telemetry``, which writes an id into the home
folder and looks up a server; without that package, OpenVINO uses a stand-in that does nothing. Both
are switched off for this process only: the user's own settings and files stay as they are.
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
"""Environment variable of ONNX Runtime; whatever the user sets is respected."""

_REPORTER: Final = "openvino_telemetry"
_LOCK = threading.RLock()


def load_quietly(module: str) -> ModuleType:
    """Import a module; if it is a runtime that reports its use, then without that.

    Raises:
        ImportError: As of any import.
    """
    if module in sys.modules:
        _silence(module)
        return importlib.import_module(module)
    with _LOCK, _unreported():
        return importlib.import_module(module)


def _silence(module: str) -> None:
    """Stop an ONNX Runtime that the program had loaded before from reporting what it does here."""
    if module == "onnxruntime" and ORT_VARIABLE not in os.environ:
        with suppress(AttributeError):  # older ones
            sys.modules[module].disable_telemetry_events()


@contextmanager
def _unreported() -> Iterator[None]:
    """Set the variable and hide the package, and undo both at the end."""
    modules: dict[str, Any] = sys.modules
    before = {name: modules[name] for name in (_REPORTER,) if name in modules}
    unset = ORT_VARIABLE not in os.environ
    os.environ.setdefault(ORT_VARIABLE, "1")
    modules[_REPORTER] = None  # importing it is an ImportError then
    try:
        yield
    finally:
        del modules[_REPORTER]
        modules.update(before)
        if unset:
            del os.environ[ORT_VARIABLE]
