"""The ONNX Runtime backend: a self-describing ``.onnx`` file on a chosen execution provider."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch
from agsr.catalog import WEIGHTS_FOLDER
from agsr.contract import INPUT_NAME, OUTPUT_NAME, SCALE, ModelMetadata
from agsr.engines.cuda import open_cuda
from agsr.engines.onnx_content import check_self_contained
from agsr.engines.ort_session import PROVIDERS, failures_told, open_session
from agsr.errors import BackendError, MissingDependencyError, ModelError
from agsr.optional import require


class OrtBackend(Backend):
    """Runs an ONNX file exported by ``agsr export``.

    Args:
        path: ONNX file.
        provider: A key of `agsr.engines.ort_session.PROVIDERS`. Another one is never used in its
            place.
        precision: Arithmetic. Of an fp32 graph, one of the provider's `Provider.precisions`; any
            other graph has its own, which this must name. None takes what is there.
        threads: Threads of the providers cpu and openvino, at most one per core; None means one
            per core.

    Raises:
        ModelError: The file is not an ONNX model that keeps the contract.
        BackendError: The provider isn't available here, or can't do what is asked.
        MissingDependencyError: onnxruntime is not installed.
    """

    bytes_per_pixel = 6_000

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "cpu",
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        if path.is_file() and path.parent != WEIGHTS_FOLDER:  # there, hashes are checked
            check_self_contained(path.read_bytes(), str(path))
        self._session = open_session(
            path, provider, _chosen(provider, precision), threads, keep_compiled=True
        )
        metadata = ModelMetadata.from_properties(
            self._session.get_modelmeta().custom_metadata_map, str(path)
        )
        _check_ports(self._session, path)
        running = _running_precision(path, metadata.precision, provider, precision)
        self._memory = PROVIDERS[provider].memory
        self._bound_output: Any = None
        self.info = BackendInfo(
            name="ort",
            device=PROVIDERS[provider].ort_name,
            precision=running,
            steps=metadata.steps,
            receptive_radius=metadata.receptive_radius,
            model=str(path),
            weights_hash=metadata.weights_hash,
        )

    def _run(self, lr: Batch) -> Batch:
        with failures_told(self.info.device, lr.shape):
            if self._memory:
                return self._run_bound(lr, self._memory)
            sr: Batch = self._session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0]
            return sr

    def _run_bound(self, lr: Batch, device: str) -> Batch:
        """Run on a device's memory: one copy in, one out; the output is used again by shape."""
        self._session.run_with_iobinding(self._bind(lr, device))
        # On the CPU, numpy() may be a view of the memory that the next run writes to.
        return np.array(self._bound_output.numpy())

    def _bind(self, lr: Batch, device: str) -> Any:
        batch, channels, height, width = lr.shape
        shape = [batch, channels, height * SCALE, width * SCALE]
        values = require("onnxruntime", extra="gpu", purpose="I/O binding").OrtValue
        if self._bound_output is None or self._bound_output.shape() != shape:
            self._bound_output = values.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, values.ortvalue_from_numpy(lr, device, 0))
        binding.bind_ortvalue_output(OUTPUT_NAME, self._bound_output)
        return binding

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`; ONNX Runtime can't tell, but CUDA where a layer is there."""
        if self._memory != "cuda":
            return None
        try:
            cuda = open_cuda()
        except (BackendError, MissingDependencyError):
            return None
        cuda.enter()
        try:
            return cuda.free_memory()
        finally:
            cuda.leave()

    def resident(self, lr: Batch) -> Callable[[], object]:
        """See `Backend.resident`; ONNX Runtime waits for the device by itself."""
        if not self._memory:
            return super().resident(lr)
        binding = self._bind(lr, self._memory)
        return partial(self._session.run_with_iobinding, binding)


def _running_precision(path: Path, graph: str, provider: str, asked: str | None) -> str:
    """What a graph runs in; an error unless that is what was asked for."""
    if graph in PROVIDERS[provider].refuses:
        reason = PROVIDERS[provider].refuses[graph]
        raise BackendError(f"{path}: provider '{provider}' does not run {graph}: {reason}")
    chosen = PROVIDERS[provider].precisions
    running = (asked or "fp32") if graph == "fp32" else graph
    if asked not in (None, running) or (graph == "fp32" and running not in chosen):
        can = " or ".join(chosen) if graph == "fp32" else graph
        raise BackendError(
            f"{path}: provider '{provider}' runs {graph} graphs in {can}, not in {asked}; "
            f"make another with: agsr export --precision {asked}"
        )
    return running


def _chosen(provider: str, precision: str | None) -> str | None:
    """What a provider is told about an fp32 graph's precision; other graphs have their own."""
    known = PROVIDERS[provider].precisions if provider in PROVIDERS else ()
    return precision if precision in known else None


def _check_ports(session: Any, path: Path) -> None:
    ports = [*session.get_inputs(), *session.get_outputs()]
    found = [(port.name, port.type, len(port.shape)) for port in ports]
    expected = [(name, "tensor(float)", 4) for name in (INPUT_NAME, OUTPUT_NAME)]
    if found != expected:
        raise ModelError(
            f"{path}: its inputs and outputs are {found}; expected {INPUT_NAME} → {OUTPUT_NAME}, "
            "float32 of rank 4"
        )
