"""Watches a Python process: ``sitecustomize`` of the commands of `test_watched`, children included.

The folder ``WATCHED`` has ``work``, which is given, ``home`` and ``tmp``; lines are added to its
``log``.
"""

import ctypes
import os
import platform
import socket
import struct
import sys

ROOT = os.path.realpath(os.environ["WATCHED"])
CACHE = f"{ROOT}/home/.cache"
GIVEN = [f"{ROOT}/work", f"{ROOT}/tmp", f"{CACHE}/agsr", "/dev", f"/proc/{os.getpid()}"]
SOCKETS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TARGETS = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0}
"""Positions of the name that is changed."""
SOCKET_CALLS = {"x86_64": 41, "aarch64": 198}
CONNECT_CALLS = {"x86_64": 42, "aarch64": 203}
"""Numbers of the system calls ``socket`` and ``connect``."""
SERVES = "WATCHED_SERVER" in os.environ
"""Whether the process may create sockets to listen on, but connect none."""
NO_NEW_PRIVILEGES, SECCOMP, FILTER_MODE = 38, 22, 2
"""Of ``prctl``."""

# urllib3, which tensorboard imports with boto3 where that is installed, otherwise binds a socket to
# ::1 to see whether there is IPv6; it connects nothing.
socket.has_ipv6 = False


def outside(path):
    """Return the resolved path if it is not in a given folder; of descriptors, nothing."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None
    found = os.path.realpath(os.fsdecode(path))
    given = found == CACHE or any(found == g or found.startswith(f"{g}/") for g in GIVEN)
    return None if given else found


def note(event, text):
    descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{event} {text}\n".encode())
    os.close(descriptor)


def hook(event, arguments):
    if event in SOCKETS:
        note(event, arguments[-1])
    elif event == "open":
        path, _, flags = arguments
        if path != LOG and isinstance(flags, int) and flags & WRITES and outside(path):
            note(event, outside(path))
    elif event in TARGETS and outside(arguments[TARGETS[event]]):
        note(event, outside(arguments[TARGETS[event]]))


def end_at_sockets():
    """Let the kernel end this process and its children if they create a socket of IPv4 or IPv6.

    A server may, but ends if it connects one, whatever its family.

    Returns:
        Whether the kernel does that.
    """
    load, jump, give = 0x20, 0x15, 0x06
    end, allow = 0x80000000, 0x7FFF0000
    rows = [
        (load, 0, 0, 0),  # the call's number
        (jump, 0, 4, SOCKET_CALLS[platform.machine()]),
        (load, 0, 0, 16),  # its first argument, the family
        (jump, 1, 0, 2),
        (jump, 0, 1, 10),
        (give, 0, 0, end),
        (give, 0, 0, allow),
    ]
    if SERVES:
        rows = [
            (load, 0, 0, 0),
            (jump, 0, 1, CONNECT_CALLS[platform.machine()]),
            (give, 0, 0, end),
            (give, 0, 0, allow),
        ]
    code = b"".join(struct.pack("HBBI", *row) for row in rows)
    held = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(rows), ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    restricted = libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    return restricted and libc.prctl(SECCOMP, FILTER_MODE, program, 0, 0) == 0


LOG = f"{ROOT}/log"
sys.addaudithook(hook)
FILTERED = sys.platform == "linux" and platform.machine() in SOCKET_CALLS and end_at_sockets()
