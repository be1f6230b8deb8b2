"""SFTP by paramiko: host keys are checked, and ``~/.ssh/config`` is followed."""

from __future__ import annotations

import getpass
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from agsr.store.address import Address

_CONNECT = 15.0
"""Seconds for each step of a connection."""


class _KnownHosts(SFTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Rejects servers whose key is not in ``~/.ssh/known_hosts``; fsspec trusts any."""

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.client.connect(self.host, **self.ssh_kwargs)
        self.ftp = self.client.open_sftp()


def open_sftp(address: Address) -> Any:
    """Connect to the server of an address.

    Raises:
        OSError, paramiko.SSHException: It can't be reached, or rejects the user.
    """
    server = urlsplit(address.url)
    host = server.hostname or ""
    known = _configured(host)
    options: dict[str, Any] = {
        "port": server.port or int(known.get("port", 22)),
        "username": unquote(server.username or "") or known.get("user") or getpass.getuser(),
        "timeout": _CONNECT,
        "banner_timeout": _CONNECT,
        "auth_timeout": _CONNECT,
    }
    if server.password:
        options |= {"password": unquote(server.password), "look_for_keys": False}
    if "identityfile" in known:
        options["key_filename"] = known["identityfile"]
    return _KnownHosts(known.get("hostname", host), skip_instance_cache=True, **options)


def _configured(host: str) -> Any:
    with suppress(OSError):
        return paramiko.SSHConfig.from_path(str(Path.home() / ".ssh" / "config")).lookup(host)
    return {}
