"""Suppresses messages that image libraries print to the process's stderr.

They print about damaged files, which agsr reports itself. Output of the libraries that run networks
must stay visible, above all before a crash, so file descriptor 2 is silenced only while an image is
decoded or encoded.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass
class _Switch:
    """Target of file descriptor 2; shared by all threads."""

    real: int | None = None
    """A copy of the descriptor while `quiet_decoders` is on."""
    sink: int = -1
    users: int = 0
    """Number of current requests for silence."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, users: int) -> None:
        """Start or end the silence with the first or last user."""
        with self.lock:
            before, self.users = self.users, self.users + users
            if self.real is not None and bool(before) != bool(self.users):
                os.dup2(self.sink if self.users else self.real, 2)


_switch = _Switch()


@contextmanager
def decoding() -> Iterator[None]:
    """Silence file descriptor 2, if `quiet_decoders` is on."""
    if _switch.real is None:
        yield
        return
    _switch.change(1)
    try:
        yield
    finally:
        _switch.change(-1)


@contextmanager
def quiet_decoders(*, throughout: bool = False) -> Iterator[None]:
    """Suppress the messages of image libraries within the block.

    For programs that own their process, such as the command line. ``sys.stderr`` still writes to
    its target, from any thread; Python's warnings are suppressed. Python's fault handler reports a
    crash of the process even while silenced.

    Args:
        throughout: Silence file descriptor 2 for the whole block, for video encoders, which may
            print at any time.
    """
    saved, python = _duplicate(2), sys.stderr
    if saved is None or python is None or _switch.real is not None:
        yield  # stderr is closed, or already silenced
        return
    with Path(os.devnull).open("wb") as sink, _like(python, saved) as ours, _faults(ours):
        try:
            python.flush()
            _switch.sink, _switch.real = sink.fileno(), saved
            _switch.change(int(throughout))
            if _descriptor(python) == 2:
                sys.stderr = ours
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
            sys.stderr.flush()
        finally:
            sys.stderr = python
            _switch.change(-int(throughout))
            _switch.real = None
            os.dup2(saved, 2)
    os.close(saved)


@contextmanager
def _faults(stream: TextIO) -> Iterator[None]:
    """Report crashes to a stream, unless the fault handler is already enabled."""
    if faulthandler.is_enabled():
        yield
        return
    faulthandler.enable(stream)
    try:
        yield
    finally:
        faulthandler.disable()


def _like(stream: TextIO, descriptor: int) -> TextIO:
    """Open a descriptor as text in the encoding of a stream; unencodable characters are escaped."""
    encoding = getattr(stream, "encoding", None)
    return os.fdopen(
        descriptor, "w", 1, closefd=False, encoding=encoding, errors="backslashreplace"
    )


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined,no-any-return]
    except (AttributeError, io.UnsupportedOperation):
        return None
