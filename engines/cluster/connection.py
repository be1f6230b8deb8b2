"""Connect to a Ray cluster, or start one on this machine; without usage statistics.

Ray is imported here, and nowhere before a run asks for it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from agsr.engines.places import AUTO
from agsr.errors import BackendError
from agsr.system.control_groups import usable_cpus
from agsr.system.optional_import import require
from agsr.system.text import first_line

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Variables of Ray: no statistics, and no warning about a default that will change."""

_STORE = 80 << 20
"""Bytes of the object store of a cluster on this machine; pictures never pass through it."""

_log = logging.getLogger(__name__)


def connect(address: str) -> tuple[Any, bool]:
    """Return the module ``ray``, connected, and whether this call connected it.

    ``auto`` starts a cluster here if there is none. A connection of the caller stays as it is.

    Raises:
        MissingDependencyError: Ray is not installed.
        BackendError: The cluster can't be reached.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = require("ray", extra="cluster", purpose="--ray")
    if ray.is_initialized():
        return ray, False
    _leave_stdout_alone()
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        with _signals_unchanged():
            if address == AUTO:
                _join_or_start(ray, common)
            elif address == "local":
                _start(ray, common)
            else:
                ray.init(address=address, **common)
    except Exception as error:  # Ray raises nearly anything
        raise BackendError(
            f"ray: no cluster answers at {address}: {first_line(error)}; see ray status"
        ) from None
    return ray, True


def _join_or_start(ray: Any, common: dict[str, Any]) -> None:
    with suppress(ConnectionError):
        ray.init(address=AUTO, **common)
        return
    _log.warning("ray: no cluster runs here; using one on this machine only")
    _start(ray, common)


def _start(ray: Any, common: dict[str, Any]) -> None:
    size = {"num_cpus": usable_cpus(), "object_store_memory": _STORE}
    ray.init(address="local", include_dashboard=False, **size, **common)


def _leave_stdout_alone() -> None:
    """Stop Ray from printing the deaths of workers to stdout; the pool reports them itself."""
    import ray._private.worker as driver

    if hasattr(driver, "print_to_stdstream"):
        driver.print_to_stdstream = lambda *_, **__: None


@contextmanager
def _signals_unchanged() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces by one that exits at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, where Ray sets none
            signal.signal(signal.SIGTERM, before)
