"""ONNX Runtime backend: a self-describing ``.onnx`` file on a chosen execution provider."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, translated_errors
from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata
from agsr.engines.onnx_file.checks import (
    check_file,
    check_io,
    described,
    running_precision,
    tile_align,
)
from agsr.engines.places import RUNTIMES
from agsr.engines.runtimes.onnxruntime_session import open_session
from agsr.engines.runtimes.providers import PROVIDERS, accepted_sizes
from agsr.engines.runtimes.session_device import SessionDevice
from agsr.errors import BackendError
from agsr.system.cpu import multiplies_int8
from agsr.system.optional_import import require

_log = logging.getLogger(__name__)


class OrtBackend(Backend):
    """Runs an ONNX file exported by ``agsr export``.

    Args:
        path: ONNX file.
        provider: A key of `agsr.engines.runtimes.providers.PROVIDERS`. It is never
            replaced by another one.
        precision: Arithmetic, which must be that of the graph; None means the graph's.
        threads: Threads of the provider cpu, at most one per core; None means one per core.
        device: Number of the GPU, for a provider that has one.

    Raises:
        ModelError: The file is not an ONNX model that follows the contract.
        BackendError: The provider isn't available here, or can't run as requested.
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
        device: int = 0,
    ) -> None:
        check_file(path)
        self._session = open_session(path, provider, threads, device=device)
        self._device, self._index = SessionDevice(provider, device), device
        metadata = ModelMetadata.from_properties(
            self._session.get_modelmeta().custom_metadata_map, str(path)
        )
        check_io(self._session, path)
        self._memory = PROVIDERS[provider].memory
        self._bound_output: Any = None
        self.info = BackendInfo(
            name="ort",
            device=self._device.name,
            precision=running_precision(
                path,
                metadata.precision,
                precision,
                RUNTIMES["ort"].precisions,
                f"provider '{provider}'",
            ),
            model=str(path),
            **described(metadata),
        )
        self.sizes, self.tile_align = metadata.sizes, tile_align(metadata)
        self._is_static = PROVIDERS[provider].static
        if self._is_static:
            self.sizes, self.tile_align = accepted_sizes(provider, metadata.sizes), 1
            self.info = replace(self.info, largest=self.sizes.fixed)
        self.bytes_per_pixel = metadata.bytes_per_pixel or self.bytes_per_pixel
        _check_int8(path, metadata.precision, provider)

    def _run(self, lr: Batch) -> Batch:
        with translated_errors(self.info.device, lr.shape):
            if self._memory:
                return self._run_bound(lr, self._memory)
            if self._is_static:
                return np.concatenate([self._run_plain(lr[n : n + 1]) for n in range(len(lr))])
            return self._run_plain(lr)

    def _run_plain(self, lr: Batch) -> Batch:
        sr: Batch = self._session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0]
        return sr

    def _run_bound(self, lr: Batch, device: str) -> Batch:
        """Run in a device's memory: one copy in, one out; outputs of one shape reuse a buffer."""
        self._session.run_with_iobinding(self._bind(lr, device))
        # On the CPU, numpy() may be a view of memory that the next run overwrites.
        return np.array(self._bound_output.numpy())

    def _bind(self, lr: Batch, device: str) -> Any:
        batch, channels, height, width = lr.shape
        shape = [batch, channels, height * self.info.scale, width * self.info.scale]
        values = require("onnxruntime", extra="gpu", purpose="I/O binding").OrtValue
        if self._bound_output is None or self._bound_output.shape() != shape:
            self._bound_output = values.ortvalue_from_shape_and_type(
                shape, np.float32, device, self._index
            )
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, values.ortvalue_from_numpy(lr, device, self._index))
        binding.bind_ortvalue_output(OUTPUT_NAME, self._bound_output)
        return binding

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`."""
        return self._device.free_memory()

    def bound_call(self, lr: Batch) -> Callable[[], object]:
        """See `Backend.bound_call`; ONNX Runtime itself waits for the device."""
        if not self._memory:
            return super().bound_call(lr)
        binding = self._bind(self._padded(lr), self._memory)
        return partial(self._session.run_with_iobinding, binding)


def _check_int8(path: Path, precision: str, provider: str) -> None:
    """Warn if a provider runs int8 graphs slowly.

    Raises:
        BackendError: The provider can't run them.
    """
    if precision != "int8":
        return
    if provider == "tensorrt-rtx":
        raise BackendError(
            f"{path}: for int8 on TensorRT use --backend trt, which makes the values signed"
        )
    if provider == "cpu":
        better = "--backend openvino is faster" if multiplies_int8() else "use --precision fp32"
        _log.warning("%s: ONNX Runtime computes int8 slower than fp32; %s", path, better)
