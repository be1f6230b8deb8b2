"""The machine's limit: a large matrix product on a contender's library, device and precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from agsr.backend import BackendInfo
from agsr.bench.contenders import Contender
from agsr.engines.ort_backend import open_session
from agsr.errors import BackendError
from agsr.optional import require

Product = tuple[str, float, Callable[[], object]]
"""Name of the library, floating-point operations, and a call that does them."""

SIDE = 2048
"""Side of the matrices on a CPU."""

DEVICE_SIDE = 8192
"""Side of the matrices on a GPU."""

GRAPH = Path(__file__).parent / "matmul.onnx"
"""A graph with nothing but ``c = a @ b``, made by ``scripts/make_matmul.py``."""


def matrix_product(contender: Contender, info: BackendInfo) -> Product:
    """A large product with what the contender computes with.

    Args:
        contender: What was asked for.
        info: What was got.

    Raises:
        BackendError: Its library can't multiply alone.
    """
    if info.name == "torch":
        return _torch(info)
    if info.name == "ort" and info.device != "CUDAExecutionProvider":
        return _onnxruntime(contender, info)
    raise BackendError(f"no matrix product for {info.name} on {info.device}")


def _torch(info: BackendInfo) -> Product:
    import torch

    device = torch.device(info.device)
    side = DEVICE_SIDE if device.type == "cuda" else SIDE
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[info.precision]
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        torch.matmul(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return "torch", 2.0 * side**3, run


def _onnxruntime(contender: Contender, info: BackendInfo) -> Product:
    require("onnxruntime", extra="cpu", purpose="Measuring a matrix product")
    provider = contender.backend.partition(":")[2] or "cpu"
    session = open_session(GRAPH, provider, info.precision, contender.threads)
    a, b = np.random.default_rng(0).random((2, SIDE, SIDE), np.float32)
    return f"onnxruntime {provider}", 2.0 * SIDE**3, partial(session.run, None, {"a": a, "b": b})
