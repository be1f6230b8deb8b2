"""Requests to a server: repeated after transient failures, with errors in words of this project.

Libraries raise errors of many types, whose texts may contain signed addresses. Here they become
`OSError`s with a reason, and the address as file name, as the system raises for local files.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from agsr.errors import AgsrError
from agsr.store.address import Address
from agsr.store.filesystems import forget
from agsr.system.text import counted, first_line

_T = TypeVar("_T")

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt, give or take a half."""

_CREDENTIALS = {
    "s3": "check the profile or keys of AWS, like AWS_PROFILE",
    "gs": "log in with: gcloud auth application-default login",
    "az": "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or: az login",
    "sftp": "check the user, and the keys in ~/.ssh",
    "https": "check the address: its signature may have expired",
    "http": "check the address",
}

_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
    "AuthenticationException",
    "BadAuthenticationType",
    "PasswordRequiredException",
}
"""Names of classes of botocore, google, azure and paramiko."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EISDIR, errno.ENOTDIR}
"""What only a disk reports: no library raises them for an answer of a server."""

_PERMANENT = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG, errno.EFBIG, *_DISK}
_LIBRARIES = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "paramiko", "s3fs")

_log = logging.getLogger(__name__)


class _TransientError(OSError):
    """A failure that may pass."""


class _LocalError(OSError):
    """A failure of this machine's disk, with a local file name."""


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Within `requested`: name the local file, not the server, where writing it fails.

    Raises:
        OSError: The disk is full, or the file can't be made.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK or error.filename == str(target):
            raise _LocalError(error.errno, error.strerror, str(target)) from None
        raise


def requested(address: Address, request: Callable[[], _T]) -> _T:
    """Return what a request returns; repeat it after transient failures.

    Raises:
        FileNotFoundError, PermissionError, OSError: With a reason, and the address as file name.
    """
    reason: str | None = ""
    for delay in (0.0, *DELAYS):
        time.sleep(delay * random.uniform(0.5, 1.5))
        try:
            return request()
        except Exception as error:
            found = _translated(address, error)
            error.with_traceback(None)
        if not isinstance(found, _TransientError):
            raise found from None
        forget(address)
        reason = found.strerror
        _log.info("%s: %s; trying again", address, reason)
    attempts = counted(len(DELAYS) + 1, "attempt")
    raise OSError(errno.EIO, f"{reason}, in {attempts}", str(address))


def _translated(address: Address, error: Exception) -> AgsrError | OSError:
    """Return an error as one of ours, or of the system."""
    if isinstance(error, (AgsrError, _LocalError)):
        return error
    status = getattr(error, "status", None) or getattr(error, "code", None)
    name, location = type(error).__name__, str(address)
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError(errno.ENOENT, "no such file or bucket", location)
    if name == "SSHException" and "not found in known_hosts" in str(error):
        reason = "the server's key is unknown; connect once with ssh, which adds it"
        return PermissionError(errno.EACCES, reason, location)
    if name == "BadHostKeyException":
        reason = "the server's key has changed; see ssh"
        return PermissionError(errno.EACCES, reason, location)
    if isinstance(error, PermissionError) or status in (401, 403) or _is_denied(error):
        reason = f"access denied; {_CREDENTIALS[address.scheme]}"
        return PermissionError(errno.EACCES, reason, location)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return OSError(errno.EIO, f"the server answers with HTTP {status}", location)
    if isinstance(error, OSError) and error.errno in _PERMANENT:
        return OSError(error.errno, _reason(error), location)
    known = type(error).__module__.partition(".")[0] in _LIBRARIES
    if isinstance(error, (OSError, EOFError)) or name == "TimeoutError" or known:
        return _TransientError(errno.EIO, _reason(error), location)
    return OSError(errno.EIO, f"{name} of its library", location)


def _is_denied(error: Exception) -> bool:
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):  # gcsfs's for HTTP 403
        return True
    return any(kind.__name__ in _NO_CREDENTIALS for kind in type(error).__mro__)


def _reason(error: Exception) -> str:
    """Return a reason without addresses, which may be signed."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif isinstance(getattr(error, "status", None), int):
        text = f"the server answers with HTTP {error.status}"  # type: ignore[attr-defined]
    else:
        text = first_line(error)
    return type(error).__name__ if "://" in text or not text else text.rstrip(".")
