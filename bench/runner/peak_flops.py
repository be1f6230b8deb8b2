"""Peak throughput: a large matrix product by an entry's library, on its device, in its precision.

`agsr.bench.runner.worker` times it; `PeakThroughput` holds the result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import BackendInfo
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.worker import elapsed
from agsr.engines.places import RUNTIMES
from agsr.engines.runtimes.onnxruntime_session import open_session
from agsr.engines.runtimes.openvino_session import open_compiled
from agsr.engines.runtimes.providers import PROVIDERS
from agsr.errors import BackendError

Product = tuple[str, float, Callable[[], object]]
"""Name of the library, floating-point operations, and a call that performs them."""

Multiplier = Callable[[int], Callable[[], object]]
"""Maps the side of the matrices to a call that multiplies them."""

SIDE = 2048
"""Side of the matrices on a CPU, unless one product then takes longer than `LONGEST`."""

DEVICE_SIDE = 8192
"""Side of the matrices on a GPU."""

LONGEST = 1.0
"""Longest time of a product in seconds: if a precision is emulated, matrices are smaller."""

_PROBE = 256

GRAPH = Path(__file__).parent / "matmul.onnx"
"""A graph of ``c = a @ b`` alone; the code that generates it is in a test."""


def matrix_product(entry: Entry, info: BackendInfo) -> Product:
    """Return a large product by the library, device and precision that an entry runs on.

    Args:
        entry: The request.
        info: The backend that runs it.

    Raises:
        BackendError: The library offers no bare product, or not in this precision.
    """
    if info.name == "torch":
        return _sized("torch", _torch(info), DEVICE_SIDE if "cuda" in info.device else SIDE)
    if info.name == "openvino" and info.precision in RUNTIMES["openvino"].precisions:
        session = open_compiled(GRAPH, info.precision, entry.cpu_threads)
        return _sized("openvino", _of_session(session), SIDE)
    if info.name == "ort" and "CUDA" not in info.device and info.precision == "fp32":
        place = _provider(info)
        session = open_session(GRAPH, place, entry.cpu_threads)
        return _sized(f"onnxruntime {place}", _of_session(session), SIDE)
    raise BackendError(f"no matrix product for {info.name} on {info.device} in {info.precision}")


def _sized(library: str, multiplier: Multiplier, side: int) -> Product:
    """Return the largest product within `LONGEST`; emulated fp16 is a thousand times slower."""
    call = multiplier(_PROBE)
    call()
    shortest = min(elapsed(call) for _ in range(3))
    while side > _PROBE and shortest * (side / _PROBE) ** 3 > LONGEST:
        side //= 2
    return library, 2.0 * side**3, multiplier(side)


def _torch(info: BackendInfo) -> Multiplier:
    import torch

    device = torch.device(info.device)
    kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if info.precision not in kinds:
        raise BackendError(f"no matrix product for torch in {info.precision}")

    def multiplier(side: int) -> Callable[[], object]:
        a, b = (torch.randn(side, side, device=device).to(kinds[info.precision]) for _ in range(2))
        out = torch.empty_like(a)

        def run() -> None:
            torch.matmul(a, b, out=out)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    return multiplier


def _provider(info: BackendInfo) -> str:
    """Return the provider that runs; ``auto`` names none."""
    return next(name for name, known in PROVIDERS.items() if known.ort_name in info.device)


def _of_session(session: Any) -> Multiplier:
    def multiplier(side: int) -> Callable[[], object]:
        a, b = np.random.default_rng(0).random((2, side, side), np.float32)
        return partial(session.run, None, {"a": a, "b": b})

    return multiplier
