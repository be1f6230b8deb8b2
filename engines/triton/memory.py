"""Shared memory with a Triton server on this host, for the input and output of a request.

The file of a region is removed as soon as the server has mapped it, so that nothing is left in
``/dev/shm`` however this process ends.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from agsr.engines.foreign.io_spec import Array
from agsr.engines.triton.client import Place

FOLDER = Path("/dev/shm")
"""Where Linux has POSIX shared memory."""

Register = Callable[[str, str, int], None]
"""Makes a region known to the server: name, key and bytes."""


class Region:
    """Shared memory that is mapped here and by the server.

    Args:
        nbytes: Size.
        register: Called while the file exists.

    Raises:
        OSError: There is no shared memory, or too little.
        BackendError: The server can't map it.
    """

    def __init__(self, nbytes: int, register: Register) -> None:
        self.name = f"agsr-{secrets.token_hex(8)}"
        self.nbytes = nbytes
        path = FOLDER / self.name
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(handle, 0, nbytes)  # a full file system is an error here, not later
            self._map = mmap.mmap(handle, nbytes)
            register(self.name, f"/{self.name}", nbytes)
        finally:
            os.close(handle)
            path.unlink()

    def write(self, values: Array, offset: int) -> Place:
        """Copy an array into the region."""
        self._view(values.dtype, values.shape, offset)[...] = values
        return Place(self.name, offset, values.nbytes)

    def read(self, kind: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
        """Return a copy of an array in the region."""
        return np.array(self._view(kind, shape, offset))

    def _view(self, kind: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
        view: Array = np.ndarray(shape, kind, self._map, offset)
        return view

    def close(self) -> None:
        """Unmap it."""
        with suppress(BufferError):  # a view is alive in another thread's traceback
            self._map.close()
