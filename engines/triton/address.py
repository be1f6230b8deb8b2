"""Address of a Triton server, with the settings of a connection: the text of ``--url``.

Data flow: ``grpc://host:8001?timeout=30`` → `Address` → `agsr.engines.triton.client`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from agsr.errors import BackendRequestError

SharedMemory = Literal["auto", "on", "off"]

_PORTS = {"grpc": 8001, "grpcs": 8001, "http": 8000, "https": 443}
"""Schemes with their default ports."""

_LOCAL = ("localhost", "127.0.0.1", "::1")

_EXAMPLE = "expected one like grpc://127.0.0.1:8001 or http://127.0.0.1:8000"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a Triton server listens, and how to talk to it.

    >>> address = Address.parse("grpc://gpu-7?timeout=5&requests=8")
    >>> str(address), address.target, address.timeout, address.requests
    ('grpc://gpu-7:8001', 'gpu-7:8001', 5.0, 8)
    """

    scheme: str
    """``grpc``, ``grpcs``, ``http`` or ``https``."""
    host: str
    """Name or address; IPv6 without brackets."""
    port: int
    path: str = ""
    """Path before ``/v2``, of a proxy that serves HTTP."""
    timeout: float = 60.0
    """Seconds that the answer to one request may take."""
    retries: int = 3
    """How often a request is repeated when the connection fails."""
    requests: int = 4
    """Requests in flight at the same time."""
    shared_memory: SharedMemory = "auto"
    """Whether pixels pass through shared memory instead of the connection; ``auto`` tries that
    with a server on this host."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``SCHEME://HOST[:PORT][/PATH][?timeout=S&retries=N&requests=N&shm=auto|on|off]``.

        Raises:
            BackendRequestError: It is not such an address.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise BackendRequestError(f"--url {_shown(text)}: not an address; {_EXAMPLE}") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise BackendRequestError(f"--url {_shown(text)}: not a Triton server's; {_EXAMPLE}")
        if parts.username is not None or parts.fragment:
            raise BackendRequestError(f"--url {_shown(text)}: has a user or a fragment; {_EXAMPLE}")
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise BackendRequestError(f"--url {_shown(text)}: gRPC has no path; {_EXAMPLE}")
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=_PORTS[parts.scheme] if port is None else port,
            path=path,
            **_settings(text, parts.query),
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.target}"

    @property
    def protocol(self) -> Literal["grpc", "http"]:
        """Which of Triton's protocols it is."""
        return "grpc" if self.scheme.startswith("grpc") else "http"

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme.endswith("s")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this host."""
        return self.host in _LOCAL

    @property
    def target(self) -> str:
        """Host, port and path as tritonclient expects them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{self.path}"


def _shown(text: str) -> str:
    """Return the text of an address without what may be a password.

    >>> _shown("https://me:secret@host/path")
    'https://host/path'
    """
    return re.sub(r"^(\w+://)?.*@", r"\1", text, flags=re.DOTALL)


@dataclass(frozen=True)
class _Setting:
    """A setting in the query of an address."""

    field: str
    parse: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    expected: str


_SETTINGS = {
    "timeout": _Setting(
        "timeout", float, lambda value: math.isfinite(value) and value > 0, "seconds above 0"
    ),
    "retries": _Setting("retries", int, lambda value: 0 <= value <= 100, "a number from 0 to 100"),
    "requests": _Setting("requests", int, lambda value: 1 <= value <= 64, "a number from 1 to 64"),
    "shm": _Setting(
        "shared_memory", str, lambda value: value in get_args(SharedMemory), "auto, on or off"
    ),
}


def _settings(text: str, query: str) -> dict[str, Any]:
    """Parse the query of an address."""
    found: dict[str, Any] = {}
    for name, word in parse_qsl(query, keep_blank_values=True):
        setting = _SETTINGS.get(name)
        if setting is None or setting.field in found:
            known = ", ".join(_SETTINGS)
            raise BackendRequestError(
                f"--url {_shown(text)}: '{name}'; expected once each of: {known}"
            )
        try:
            value = setting.parse(word)
        except ValueError:
            value = None
        if value is None or not setting.accepts(value):
            raise BackendRequestError(
                f"--url {_shown(text)}: {name} is '{word}'; expected {setting.expected}"
            )
        found[setting.field] = value
    return found
