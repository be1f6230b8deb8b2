"""From the words a user gives (backend, weights, steps) to a loaded backend."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from agsr.backend import Backend
from agsr.catalog import (
    CHECKPOINT_SUFFIX,
    DEFAULT_WEIGHTS,
    ONNX_SUFFIX,
    find_checkpoint,
    find_onnx,
)
from agsr.contract import DEFAULT_STEPS, MAX_STEPS
from agsr.engines.ort_backend import OrtBackend
from agsr.engines.torch_backend import TorchBackend
from agsr.errors import BackendError, MissingDependencyError

BACKENDS = ("auto", "ort", "torch")
"""Names of the backends; ``auto`` takes ONNX Runtime where it is installed, else torch."""


def open_backend(
    backend: str = "auto",
    weights: str = DEFAULT_WEIGHTS,
    *,
    steps: int | None = None,
    provider: str = "cpu",
    device: str = "cpu",
    threads: int = 0,
) -> Backend:
    """Load a network.

    Args:
        backend: One of `BACKENDS`.
        weights: A shipped name, or the path of an ``.onnx`` or ``.safetensors`` file.
        steps: Time steps; None means those of the ONNX file, or 4.
        provider: ONNX Runtime's execution provider: ``cpu``, ``openvino`` or ``cuda``.
        device: torch's device.
        threads: Threads of ONNX Runtime's CPU provider; 0 means one per core.

    Raises:
        AgsrError: Whatever is wrong, in words the user can act on.
    """
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise BackendError(f"steps is {steps}; expected 1 to {MAX_STEPS}")
    name = _choose(backend, weights)
    if name == "torch":
        path = find_checkpoint(weights)
        return TorchBackend(path, steps=steps or DEFAULT_STEPS, device=device)
    path = find_onnx(weights, steps or DEFAULT_STEPS)
    loaded = OrtBackend(path, provider=provider, threads=threads)
    if steps is not None and loaded.info.steps != steps:
        raise BackendError(
            f"{path} was exported with {loaded.info.steps} steps, asked for {steps}; "
            f"make it with: agsr export --steps {steps}"
        )
    return loaded


def _choose(backend: str, weights: str) -> str:
    if backend not in BACKENDS:
        raise BackendError(f"no backend named '{backend}'; known: {', '.join(BACKENDS)}")
    suffix = Path(weights).suffix
    if backend == "torch" and suffix == ONNX_SUFFIX:
        raise BackendError(f"torch runs {CHECKPOINT_SUFFIX} files, not {weights}: --backend ort")
    if backend != "auto":
        return backend
    if suffix == CHECKPOINT_SUFFIX:
        return "torch"
    if suffix == ONNX_SUFFIX or find_spec("onnxruntime"):
        return "ort"
    if find_spec("torch"):
        return "torch"
    raise MissingDependencyError(
        "neither onnxruntime nor torch is installed. Install one with: pip install 'agsr[cpu]'"
    )
