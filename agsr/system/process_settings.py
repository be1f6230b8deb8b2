"""Process-wide settings that a command may change and a library must not; undone at the end.

Processes that a command starts, such as the workers of ``agsr bench``, inherit the environment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agsr.system.cache_dir import cache_folder
from agsr.system.cpu import is_limited, thread_count
from agsr.system.telemetry import ORT_VARIABLE
from agsr.system.text import printable

_THREADS = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""Variables from which torch, numpy's BLAS and OpenCV read their thread count on import."""


class _OneLine(logging.Formatter):
    """Escapes messages, which may contain any file name, for terminals."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the escaped message."""
        return printable(record.getMessage())


@contextmanager
def command_process() -> Iterator[None]:
    """Set up the process of a command: telemetry off, usable CPUs only, one line per warning."""
    environment = dict(os.environ)
    logger, handler = logging.getLogger("agsr"), logging.lastResort
    levels = logger.level, handler.level if handler else logging.NOTSET
    for name, value in _settings().items():
        os.environ.setdefault(name, value)
    if handler is not None:  # prints warnings if no logging is configured
        formatter = handler.formatter
        handler.setFormatter(_OneLine())
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        logger.setLevel(levels[0])
        if handler is not None:
            handler.setLevel(levels[1])
            handler.setFormatter(formatter)


def _settings() -> dict[str, str]:
    """Return defaults for environment variables that the user hasn't set."""
    settings = {ORT_VARIABLE: "1", "TORCHINDUCTOR_CACHE_DIR": str(cache_folder() / "inductor")}
    home = os.path.expanduser("~")  # noqa: PTH111  # pathlib fails without a home folder
    config = Path(os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config")
    if not (config / "matplotlib").exists():  # matplotlib would create it, empty
        settings["MPLCONFIGDIR"] = str(cache_folder() / "matplotlib")
    if is_limited():
        settings |= dict.fromkeys(_THREADS, str(thread_count(None)))
    return settings
