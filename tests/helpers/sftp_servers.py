"""SFTP servers on the loopback interface: paramiko's, and sshd where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.sftp import SFTP_NO_SUCH_FILE, SFTP_OK, SFTP_PERMISSION_DENIED

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class _Folder(paramiko.SFTPServerInterface):
    """Serves real files; the paths of clients are those of this machine."""

    def list_folder(self, path: str) -> Any:
        if not Path(path).is_dir():
            return SFTP_NO_SUCH_FILE
        if not Path(path).stat().st_mode & 0o400:  # for root as for anyone else
            return SFTP_PERMISSION_DENIED
        return [
            paramiko.SFTPAttributes.from_stat(item.lstat(), item.name)
            for item in Path(path).iterdir()
        ]

    def stat(self, path: str) -> Any:
        return _attempt(lambda: paramiko.SFTPAttributes.from_stat(os.stat(path)))  # noqa: PTH116

    lstat = stat

    def open(self, path: str, flags: int, attr: object) -> Any:  # noqa: ARG002
        def opened() -> paramiko.SFTPHandle:
            file = os.fdopen(os.open(path, flags, 0o644), "rb" if not flags & 3 else "wb")
            handle = paramiko.SFTPHandle(flags)
            handle.filename = path  # type: ignore[attr-defined]
            handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
            handle.stat = lambda: self.stat(path)  # type: ignore[method-assign]
            return handle

        return _attempt(opened)

    def remove(self, path: str) -> Any:
        return _attempt(lambda: os.remove(path) or SFTP_OK)  # type: ignore[func-returns-value]  # noqa: PTH107

    def mkdir(self, path: str, attr: object) -> Any:  # noqa: ARG002
        return _attempt(lambda: os.mkdir(path) or SFTP_OK)  # type: ignore[func-returns-value]  # noqa: PTH102

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        return _attempt(lambda: os.replace(oldpath, newpath) or SFTP_OK)  # type: ignore[func-returns-value]  # noqa: PTH105


def _attempt(operation: Any) -> Any:
    try:
        return operation()
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno or 0)


class _Login(paramiko.ServerInterface):
    def check_auth_password(self, username: str, password: str) -> int:
        right = (username, password) == ("me", "secret-word")
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "password"


@contextmanager
def paramiko_server(home: Path) -> Iterator[str]:
    """Yield the beginning of an address, with a password; the server's key is known in ``home``."""
    key = paramiko.RSAKey.generate(2048)
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                transport = paramiko.Transport(listener.accept()[0])
                transports.append(transport)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Folder)
                with suppress(Exception):
                    transport.start_server(server=_Login())

    threading.Thread(target=accept, daemon=True).start()
    port = listener.getsockname()[1]
    _know(home, port, f"{key.get_name()} {key.get_base64()}")
    yield f"sftp://me:secret-word@127.0.0.1:{port}"
    listener.close()
    for transport in transports:
        transport.close()


@contextmanager
def sshd_server(home: Path) -> Iterator[str]:
    """Yield the beginning of an address of a real sshd, with the user's key in ``home``."""
    if not Path(SSHD).exists():
        pytest.skip("sshd is not installed")
    keys = home / ".ssh"
    keys.mkdir(parents=True, exist_ok=True)
    for name in ("host", "id_rsa"):
        paramiko.RSAKey.generate(2048).write_private_key_file(str(keys / name))
    public = {n: paramiko.RSAKey.from_private_key_file(str(keys / n)) for n in ("host", "id_rsa")}
    (keys / "authorized").write_text(f"ssh-rsa {public['id_rsa'].get_base64()}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (keys / "sshd").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nPidFile {keys}/pid\n"
        f"AuthorizedKeysFile {keys}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        "PermitRootLogin yes\nUsePAM no\nSubsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    _know(home, port, f"ssh-rsa {public['host'].get_base64()}")
    command = [SSHD, "-D", "-e", "-f", str(keys / "sshd")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"sftp://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _know(home: Path, port: int, key: str) -> None:
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")


def _wait_for(port: int) -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
