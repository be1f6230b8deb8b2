"""The machine's limit: a large matrix product on a contender's library, device and precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import BackendInfo
from agsr.bench.runner.clock import seconds
from agsr.bench.runner.entries import Contender
from agsr.engines.places import RUNTIMES
from agsr.engines.runtimes.onnxruntime_session import PROVIDERS, open_session
from agsr.engines.runtimes.openvino_session import open_compiled
from agsr.errors import BackendError

Product = tuple[str, float, Callable[[], object]]
"""Name of the library, floating-point operations, and a call that does them."""

Multiplier = Callable[[int], Callable[[], object]]
"""From the matrices' side to a call that multiplies them."""

SIDE = 2048
"""Side of the matrices on a CPU, where one product takes no longer than `LONGEST`."""

DEVICE_SIDE = 8192
"""Side of the matrices on a GPU."""

LONGEST = 1.0
"""Seconds a product may take: where a precision is emulated, the matrices are smaller."""

_PROBE = 256

GRAPH = Path(__file__).parent / "matmul.onnx"
"""A graph with nothing but ``c = a @ b``; a test holds the code that makes it."""


def matrix_product(contender: Contender, info: BackendInfo) -> Product:
    """A large product with what the contender computes with.

    Args:
        contender: What was asked for.
        info: What was got.

    Raises:
        BackendError: Its library can't multiply alone, or not in this precision.
    """
    if info.name == "torch":
        return _sized("torch", _torch(info), DEVICE_SIDE if "cuda" in info.device else SIDE)
    if info.name == "openvino" and info.precision in RUNTIMES["openvino"].precisions:
        session = open_compiled(GRAPH, info.precision, contender.cpu_threads)
        return _sized("openvino", _of_session(session), SIDE)
    if info.name == "ort" and "CUDA" not in info.device and info.precision == "fp32":
        place = _provider(info)
        session = open_session(GRAPH, place, contender.cpu_threads)
        return _sized(f"onnxruntime {place}", _of_session(session), SIDE)
    raise BackendError(f"no matrix product for {info.name} on {info.device} in {info.precision}")


def _sized(library: str, multiplier: Multiplier, side: int) -> Product:
    """The largest product that is not too slow; emulated fp16 is a thousand times slower."""
    run = multiplier(_PROBE)
    run()
    shortest = min(seconds(run) for _ in range(3))
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
    """The provider that was got: ``auto`` names none."""
    return next(name for name, known in PROVIDERS.items() if known.ort_name in info.device)


def _of_session(session: Any) -> Multiplier:
    def multiplier(side: int) -> Callable[[], object]:
        a, b = np.random.default_rng(0).random((2, side, side), np.float32)
        return partial(session.run, None, {"a": a, "b": b})

    return multiplier
