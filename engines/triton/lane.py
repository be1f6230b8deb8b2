"""A lane: one request in flight, in a thread with its own connection and shared memory.

Data flow: arrays from `agsr.engines.triton.backend` → shared memory or the connection → server →
back. A request whose connection fails is repeated on a new one, a bounded number of times.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

import numpy as np

from agsr.engines.concurrency import ContextPool
from agsr.engines.foreign.io_spec import Array
from agsr.engines.triton.address import Address
from agsr.engines.triton.client import Client, Given, Place, ServerAwayError, ServerLateError
from agsr.engines.triton.memory import FOLDER, Region
from agsr.errors import BackendError
from agsr.system.text import counted

P = ParamSpec("P")
T = TypeVar("T")

PAUSE = 0.5
"""Seconds before the first repetition; each further one waits twice as long."""

_ALIGNMENT = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exchange:
    """A request: an input, and the output it is for."""

    model: str
    input: str
    output: str
    input_kind: str
    """Element type of the input, by Triton's name."""
    output_type: str
    """Element type of the output, by numpy's name."""
    output_bytes: int | None
    """Bytes of the largest possible output; None if unknown, which rules out shared memory."""


class Lane:
    """Sends one request at a time.

    Args:
        address: The server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool = ContextPool(1, "triton")
        self._closing = threading.Event()
        self._client: Client | None = None
        self._region: Region | None = None
        self._shares = _may_share(address)

    def submit(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in the lane's thread, after those submitted before."""
        return self._pool.submit(act, *args, **kwargs)

    @property
    def client(self) -> Client:
        """The connection; to be used in the lane's thread only."""
        if self._client is None:
            self._client = Client(self._address)
        return self._client

    def exchange(self, what: Exchange, values: Array) -> Array:
        """Send an input and return the output; to be called in the lane's thread only.

        Raises:
            BackendError: The server can't be reached, is too slow, or reports an error.
        """
        pause, retries = PAUSE, self._address.retries
        for attempt in range(retries + 1):
            try:
                return self._attempt(what, values)
            except ServerLateError:
                # The request still runs: the server may read and write its memory at any time, so
                # the next request needs other memory, and this can't be unregistered either.
                self._reset()
                raise
            except ServerAwayError as error:
                self._reset()
                if attempt == retries or self._closing.is_set():
                    raise ServerAwayError(f"{error} ({counted(attempt + 1, 'attempt')})") from None
                _log.warning("%s; trying again in %g s", error, pause)
            self._closing.wait(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def _attempt(self, what: Exchange, values: Array) -> Array:
        given = Given(what.input, what.input_kind, values.shape, values)
        region = self._shared(what, values)
        if region is None:
            received, shape = self.client.infer(what.model, given, what.output)
        else:
            offset = _aligned(values.nbytes)
            given = replace(given, values=region.write(values, 0))
            into = Place(region.name, offset, what.output_bytes or 0)
            try:
                _, shape = self.client.infer(what.model, given, what.output, into)
            except BackendError as error:
                if region.name not in str(error):
                    raise
                # The server has been started again since, and knows no region of before.
                raise ServerAwayError(str(error)) from None
            received = region.read(np.dtype(what.output_type), shape, offset)
        if received is None:
            raise BackendError(
                f"{self._address}: model '{what.model}' returned no output '{what.output}'"
            )
        return received

    def _shared(self, what: Exchange, values: Array) -> Region | None:
        """Return a registered region that holds input and output; None to use the connection."""
        if not self._shares or what.output_bytes is None:
            return None
        needed = _aligned(values.nbytes) + what.output_bytes
        if self._region is not None and self._region.nbytes >= needed:
            return self._region
        self._forget_region()
        try:
            self._region = Region(needed, self.client.register)
        except ServerAwayError:
            raise
        except (OSError, BackendError) as error:
            self._without_sharing(error)
        return self._region

    def _without_sharing(self, error: Exception) -> None:
        """Use the connection from now on, unless shared memory was required."""
        if self._address.shared_memory == "on":
            raise BackendError(
                f"{self._address}: shared memory can't be used ({error}); the server must run on "
                "this host, as the same user, and see the same /dev/shm: remove shm=on from --url"
            ) from None
        _log.info("%s: no shared memory: %s", self._address, error)
        self._shares = False

    def _forget_region(self) -> None:
        region, self._region = self._region, None
        if region is None:
            return
        with suppress(BackendError):  # a server that is away has forgotten it
            self.client.unregister(region.name)
        region.close()

    def _reset(self) -> None:
        """Drop the connection, and shared memory that the server no longer knows or still uses."""
        region, self._region = self._region, None
        if region is not None:
            region.close()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _finish(self) -> None:
        self._forget_region()
        self._reset()

    def close(self) -> None:
        """Give back what the server holds, and close the connection."""
        self._closing.set()
        with suppress(RuntimeError):  # closed before
            self._pool.submit(self._finish).result()
        self._pool.shutdown()


def _may_share(address: Address) -> bool:
    """Return True if shared memory should be tried.

    Raises:
        BackendError: It is required, and this system has none.
    """
    there = FOLDER.is_dir()
    if address.shared_memory == "on" and not there:
        raise BackendError(f"{address}: this system has no {FOLDER}; remove shm=on from --url")
    return there and (
        address.shared_memory == "on" or (address.shared_memory == "auto" and address.is_local)
    )


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
