"""What a command may change in its process and a library may not; undone when the command ends.

The environment that is set here is inherited by the processes that a command starts, such as those
of ``agsr bench``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agsr.errors import printable
from agsr.system.cache_dir import cache_folder
from agsr.system.cpu import is_limited, thread_count
from agsr.system.telemetry import ORT_VARIABLE

_THREADS = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""Variables by which torch, numpy's BLAS and OpenCV choose their threads when they are loaded."""


class _OneLine(logging.Formatter):
    """Messages that repeat names of files, as a terminal can show them."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return printable(record.getMessage())


@contextmanager
def own_process() -> Iterator[None]:
    """Set up the process for a command: telemetry off, usable CPUs only, warnings in one line."""
    environment = dict(os.environ)
    logger, handler = logging.getLogger("agsr"), logging.lastResort
    levels = logger.level, handler.level if handler else logging.NOTSET
    for name, value in _settings().items():
        os.environ.setdefault(name, value)
    if handler is not None:  # it prints warnings where nobody asked for more
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
    """Environment variables, for where the user has set none."""
    settings = {ORT_VARIABLE: "1", "TORCHINDUCTOR_CACHE_DIR": str(cache_folder() / "inductor")}
    home = os.path.expanduser("~")  # noqa: PTH111  # pathlib fails where there is no home folder
    config = Path(os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config")
    if not (config / "matplotlib").exists():  # matplotlib would make it, empty
        settings["MPLCONFIGDIR"] = str(cache_folder() / "matplotlib")
    if is_limited():
        settings |= dict.fromkeys(_THREADS, str(thread_count(None)))
    return settings
