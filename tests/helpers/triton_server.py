"""Starts the real ``tritonserver`` of the package nvidia-pytriton on the loopback interface.

The package requires an older numpy than agsr, so it is installed without its dependencies in a
folder of its own, which ``AGSR_TRITON`` names: see docs/triton.md. Only its server, the Python
backend and their libraries are used.
"""

from __future__ import annotations

import ctypes.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

VARIABLE = "AGSR_TRITON"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def missing() -> str:
    """Why the server can't run here; empty if nothing is known."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return f"{VARIABLE} names no folder with nvidia-pytriton"
    if not (Path(folder) / "pytriton" / "tritonserver" / "bin" / "tritonserver").is_file():
        return f"no tritonserver in {folder}"
    if ctypes.util.find_library(f"python{_PYTHON}") is None:
        return f"no libpython{_PYTHON}, which Triton's Python backend loads"
    return ""


NEEDS_TRITON = pytest.mark.skipif(bool(missing()), reason=missing() or "runs")


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TritonServer:
    """A server of a model repository.

    Args:
        models: The repository.
        work: An empty folder for its log and the backend's folder.
    """

    def __init__(self, models: Path, work: Path) -> None:
        self._models, self._work = models, work
        self.http_port, self.grpc_port = free_port(), free_port()
        self.http, self.grpc = (
            f"http://127.0.0.1:{self.http_port}",
            f"grpc://127.0.0.1:{self.grpc_port}",
        )
        self._prefix = f"triton-{os.getpid()}-{self.http_port}-"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until its models are ready."""
        root = Path(os.environ[VARIABLE])
        installed = root / "pytriton" / "tritonserver"
        address = ("--http-address=127.0.0.1", "--grpc-address=127.0.0.1")
        command = [
            str(installed / "bin" / "tritonserver"),
            f"--model-repository={self._models}",
            f"--backend-directory={self._backends(installed)}",
            *(*address, f"--http-port={self.http_port}", f"--grpc-port={self.grpc_port}"),
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            *("--allow-metrics=false", "--exit-timeout-secs=20", "--exit-on-error=false"),
        ]
        with (self._work / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=_environment(root), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait()

    def _backends(self, installed: Path) -> Path:
        """Put the Python backend and the stub for this version of Python together."""
        folder = self._work / "backends" / "python"
        if not folder.exists():
            folder.mkdir(parents=True)
            stub = installed / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
            for file in (*(installed / "backends" / "python").iterdir(), stub):
                (folder / file.name).symlink_to(file)
        return folder.parent

    def _wait(self) -> None:
        assert self.process is not None
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            if self._is_ready():
                return
            time.sleep(0.05)
        pytest.fail(f"tritonserver did not start:\n{self.log[-3000:]}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/v2/health/live", timeout=5):
                return True
        except OSError:  # urllib's own errors are derived from it
            return False

    @property
    def log(self) -> str:
        """What it has printed."""
        return (self._work / "log.txt").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it end by itself."""
        self._end(signal.SIGTERM)

    def clean_up(self) -> None:
        """Remove what a killed server leaves in shared memory for its models."""
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):
            left.unlink()

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _environment(root: Path) -> dict[str, str]:
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(root / "nvidia_pytriton.libs"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": packages,
        "OMP_NUM_THREADS": "1",
    }


def running(models: Path, work: Path) -> Iterator[TritonServer]:
    """A started server, stopped at the end."""
    with ExitStack() as stack:
        server = TritonServer(models, work)
        stack.callback(server.clean_up)
        stack.callback(server.stop)
        server.start()
        yield server
