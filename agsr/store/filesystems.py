"""Open the fsspec file system of an address: one per thread and server, with the usual credentials.

Credentials come from where each library looks for them: environment variables, profiles, instance
roles, ``~/.ssh``, or the address itself.
"""

from __future__ import annotations

import inspect
import logging
import threading
from typing import Any

from agsr.store.address import Address
from agsr.system.optional_import import require

_DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "sftp": "paramiko", "http": "aiohttp"}
"""Import name of the package that a scheme needs, beside fsspec."""

_OPTIONS: dict[str, dict[str, Any]] = {
    # One GET per file: with more, s3fs asks for the size first. `agsr.store.retry` has the retries.
    "s3": {
        "max_concurrency": 1,
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 60,
            "retries": {"total_max_attempts": 1},
        },
    },
    "gs": {"use_listings_cache": False},
    "az": {"use_listings_cache": False, "anon": False},
    "http": {"use_listings_cache": False},
}

_AZURE_ACCOUNT = ".dfs.core.windows.net"

_ALREADY_REPEATED = ("_request", "_get_file_request", "_get_file_concurrent")
"""Methods of gcsfs that repeat themselves."""

_opened = threading.local()


def filesystem(address: Address) -> Any:
    """Return this thread's file system of an address; its connection is reused.

    Raises:
        MissingDependencyError: A package of the extra ``cloud`` is not installed.
    """
    systems: dict[tuple[str, str], Any] = _opened.__dict__.setdefault("systems", {})
    key = address.scheme, address.host
    if key not in systems:
        systems[key] = _open(address)
    return systems[key]


def forget(address: Address) -> None:
    """Drop this thread's connection, if it is one that can break: HTTP opens them as needed."""
    if address.scheme != "sftp":
        return
    _opened.__dict__.get("systems", {}).pop((address.scheme, address.host), None)


def path_of(address: Address, system: Any) -> str:
    """Return the name that a file system has for an address; any character may be in it."""
    if address.scheme == "sftp":
        return f"/{address.key}"
    if address.scheme == "az":
        container, _, account = address.host.partition("@")
        is_account = not account and container.endswith(_AZURE_ACCOUNT)
        return "/".join(filter(None, ("" if is_account else container, address.key)))
    return str(system._strip_protocol(address.url))


def require_drivers(address: Address) -> None:
    """Check before long work that the packages for an address are installed.

    Raises:
        MissingDependencyError: One is not.
    """
    for package in ("fsspec", _DRIVERS[_kind(address)]):
        require(package, extra="cloud", purpose=f"{address.scheme}://")


def _kind(address: Address) -> str:
    return "http" if address.scheme == "https" else address.scheme


def _open(address: Address) -> Any:
    kind = _kind(address)
    require_drivers(address)
    options = {**_OPTIONS.get(kind, {}), "skip_instance_cache": True}
    if kind == "sftp":
        from agsr.store.sftp import open_sftp

        return open_sftp(address)
    import fsspec

    found = fsspec.get_filesystem_class(kind)
    if kind == "s3":
        # A class of its own, since the number of attempts is an attribute of the class.
        found = type("S3", (found,), {"retries": 1})
    if kind == "gs":
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL + 1)  # it prints each failure
        repeated = [name for name in _ALREADY_REPEATED if hasattr(found, name)]
        once = {name: inspect.unwrap(getattr(found, name)) for name in repeated}
        found = type("GCS", (found,), once)
    return found(**{**found._get_kwargs_from_urls(address.url), **options})


def forget_all() -> None:
    """Drop all connections of this thread."""
    _opened.__dict__.pop("systems", None)
