"""The stage ``check`` of the GPU kit: what is there, does it compute what the CPU computes.

Each part is a line of the table at the end and an entry of ``check.json``; a part that fails or is
not there doesn't stop the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from agsr.engines.open import open_backend
from agsr.export.verify import sample_batch

LEVELS = {"fp32": 0.05, "fp16": 2.0, "bf16": 8.0}
"""8-bit levels that the network may be off on another device, at 4 steps."""

SHAPES = ((1, 8, 12),) if os.environ.get("SIZES") == "tiny" else ((1, 96, 128), (3, 67, 93))
"""Images, height and width of the batches compared."""

CUDA_BINDINGS = """
from cuda.bindings import runtime
error, count = runtime.cudaGetDeviceCount()
assert int(error) == 0 and count > 0, error
print(count, "devices, CUDA", runtime.cudaRuntimeGetVersion()[1])
"""
PYCUDA = """
import pycuda.driver as driver
driver.init()
print(driver.Device(0).name(), driver.get_driver_version())
"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--device", default="cuda")
@click.option("--seconds", default=85.0)
def main(out: Path, device: str, seconds: float) -> None:
    """Run all parts; the status is 1 if one failed."""
    end = time.monotonic() + seconds
    results: dict[str, Any] = {}
    for name, part in _parts(device, end):
        began = time.monotonic()
        try:
            found, passed = part()
        except Exception as error:  # whatever it is, the next part is worth running
            found, passed = f"{type(error).__name__}: {error}", False
        took = round(time.monotonic() - began, 1)
        results[name] = {"passed": passed, "found": found, "seconds": took}
        (out / "check.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, row in results.items():
        state = {True: "ok", False: "FAILED", None: "not here"}[row["passed"]]
        print(f"{name:<16} {state:<9} {row['seconds']:6.1f} s  {str(row['found'])[-160:]!r}")
    sys.exit(any(row["passed"] is False for row in results.values()))


Part = Callable[[], tuple[Any, bool | None]]


def _parts(device: str, end: float) -> Iterator[tuple[str, Part]]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    yield "gpu", partial(_output, query, end, optional=device == "cpu")
    for precision in LEVELS:
        yield f"torch {precision}", partial(_parity, device, precision)
    optional = device == "cpu"
    yield "cuda.bindings", partial(_output, [sys.executable, "-c", CUDA_BINDINGS], end, optional)
    yield "pycuda", partial(_output, [sys.executable, "-c", PYCUDA], end, optional=True)
    tests = ["tests/engines/test_gpu.py", "tests/training/test_gpu_training.py"]
    # Compiling takes longer than all else here, and `train` tries it.
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not compiled", *tests]
    yield "tests", partial(_output, command, end)


def _parity(device: str, precision: str) -> tuple[Any, bool]:
    """Largest difference from float32 on the CPU, in 8-bit levels."""
    worst = 0.0
    with (
        open_backend("torch", steps=4) as reference,
        open_backend("torch", steps=4, device=device, precision=precision) as backend,
    ):
        for shape in SHAPES:
            lr = sample_batch(*shape)
            difference = np.abs(backend.upscale(lr) - reference.upscale(lr)).max()
            worst = max(worst, 255 * float(difference))
    return {"levels": round(worst, 4), "allowed": LEVELS[precision]}, worst <= LEVELS[precision]


def _output(command: list[str], end: float, optional: bool = False) -> tuple[Any, bool | None]:
    """The last lines that a command prints; failing is no fault where it is optional."""
    failed = None if optional else False
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(1.0, end - time.monotonic())
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), failed
    print(done.stdout, done.stderr, flush=True)
    text = (done.stdout.strip() or done.stderr.strip())[-2000:]
    return text, True if done.returncode == 0 else failed


if __name__ == "__main__":
    main()
