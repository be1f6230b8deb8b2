"""The server of ``agsr serve`` in this process, with stub networks, and what its tests share."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from conftest import PYTHONPATH
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


PROGRAM = """
import json, sys, time
from pathlib import Path
from stubs import Repeat
from agsr.serve.server import serve
from agsr.serve.settings import ServeSettings

class Slow(Repeat):
    def _run(self, lr):
        time.sleep(0.02)
        return super()._run(lr)

settings = ServeSettings(
    port=0,
    spool=Path(sys.argv[1]),
    token=sys.argv[2] or None,
    running={"tile": 8, "halo": 0},
    header_seconds=0.5,
    **json.loads(sys.argv[3]),
)
serve(settings, lambda address: print(address, flush=True), opener=lambda **_: Slow())
"""


class Server:
    """A server with a stub network, of which a tile takes 20 ms."""

    def __init__(self, spool: Path, token: str = "", **settings: Any) -> None:
        self.spool = spool
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(spool), token, json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        self.port = int(self.address.rstrip("/").rpartition(":")[2])
        wait_for(lambda: httpx2.get(f"{self.address}readyz").status_code == 200)

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return httpx2.request(method, f"{self.address}{path}", timeout=60, **options)

    def metric(self, name: str) -> float:
        text = self.request("GET", "metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def connect(self, content: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(content)
        return connection

    def kill(self) -> None:
        """End the process at once, if it lives."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
