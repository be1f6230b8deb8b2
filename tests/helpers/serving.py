"""The server of ``agsr serve`` in this process, with stub networks, and what its tests share."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient
from stubs import Repeat

from agsr.backend import Backend, Batch
from agsr.serve.app import create_app
from agsr.serve.settings import ServeSettings

LOCAL = "http://localhost"


class Gated(Repeat):
    """Repeats pixels; while it is closed, each tile waits until it may pass."""

    def __init__(self) -> None:
        super().__init__()
        self._closed, self._passes, self._arrived = False, threading.Semaphore(0), 0

    def close_gate(self) -> None:
        self._passes, self._arrived, self._closed = threading.Semaphore(0), 0, True

    def open_gate(self) -> None:
        self._closed = False
        self._passes.release(1000)

    def pass_one(self) -> None:
        self._passes.release()

    def wait_for_tile(self, number: int = 1) -> None:
        """Wait until so many tiles have come to the closed gate."""
        wait_for(lambda: self._arrived >= number)

    def _run(self, lr: Batch) -> Batch:
        if self._closed:
            self._arrived += 1
            assert self._passes.acquire(timeout=60)
        return super()._run(lr)


@contextmanager
def serving(
    spool: Path, backend: Backend | None = None, token: str | None = None, **settings: Any
) -> Iterator[TestClient]:
    """A client of a server that has warmed up."""
    network = backend or Repeat()
    settings.setdefault("running", {"tile": 8, "halo": 0})
    chosen = ServeSettings(spool=spool, token=token, **settings)
    app = create_app(chosen, lambda **_: network)
    with TestClient(app, LOCAL, raise_server_exceptions=False) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        yield client


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
    return found


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """A job when it is finished."""

    def state() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(job["links"]["self"]).json()
        return None if found["state"] in ("queued", "running") else found

    return wait_for(state)  # type: ignore[no-any-return]


def picture(width: int = 12, height: int = 9, form: str = "PNG", mode: str = "RGB") -> bytes:
    """A small picture of noise."""
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()
