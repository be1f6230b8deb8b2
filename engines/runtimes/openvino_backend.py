"""OpenVINO backend: a self-describing ``.onnx`` file on x86-64 processors and Intel's GPUs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from agsr.backend import Backend, BackendInfo, Batch, translated_errors
from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata, SizeRule
from agsr.engines.onnx_file.checks import (
    check_file,
    check_io,
    described,
    running_precision,
    tile_align,
)
from agsr.engines.onnx_file.inspect import read_properties
from agsr.engines.places import RUNTIMES
from agsr.engines.runtimes.openvino_session import computes_bf16, open_compiled
from agsr.engines.runtimes.providers import STATIC
from agsr.errors import BackendError
from agsr.pretrained import require_file
from agsr.system.cpu import multiplies_int8
from agsr.tiling import AUTO_AREA_BF16

_log = logging.getLogger(__name__)


class OpenVinoBackend(Backend):
    """Runs an ONNX file exported by ``agsr export``, compiled for this processor.

    Args:
        path: ONNX file.
        precision: Arithmetic. For an fp32 graph, fp32 or bf16; any other graph has its own, which
            must be given here, and is computed in fp32 if the processor lacks bf16. None means the
            graph's.
        threads: At most one per core; None means one per core.
        device: ``cpu``, or a device of Intel's: ``gpu``, ``gpu:1``, ``npu``. An NPU computes in
            fp16, on pictures of one size.

    Raises:
        ModelError: The file is not an ONNX model that follows the contract.
        BackendError: It can't run in the requested precision.
        MissingDependencyError: openvino is not installed.
    """

    bytes_per_pixel = 6_000

    def __init__(
        self,
        path: Path,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        require_file(path)
        check_file(path)
        metadata = ModelMetadata.from_properties(read_properties(path), str(path))
        choices = RUNTIMES["openvino"].precisions
        running = running_precision(path, metadata.precision, precision, choices, "openvino")
        on_cpu = device == "cpu"
        if running == "int8" and on_cpu and not multiplies_int8():
            raise BackendError(
                f"{path}: int8 sums overflow in OpenVINO on this processor, which has neither VNNI "
                "nor AMX; use --precision fp32, which is faster here, or --backend ort"
            )
        hint = _arithmetic(metadata.precision, running) if on_cpu else _on_device(running)
        if running == "bf16" and hint == "fp32":
            _log.warning("this processor has no bf16 units: bf16 weights run in fp32 arithmetic")
        if hint == "bf16":
            self.bytes_per_pixel, self.tile_area = 3_000, AUTO_AREA_BF16
        sizes, align = metadata.sizes, tile_align(metadata)
        if device == "npu":
            sizes, align = SizeRule(fixed=sizes.fixed or STATIC), 1
        self._session = open_compiled(
            *(path, hint, threads),
            cached=True,
            device=device,
            size=sizes.fixed if device == "npu" else None,
        )
        check_io(self._session, path)
        self.info = BackendInfo(
            name="openvino",
            device=device.upper(),
            precision=running,
            model=str(path),
            **described(metadata),
        )
        self.sizes, self.tile_align = sizes, align
        self._is_static = device == "npu"
        if self._is_static:
            self.info = replace(self.info, largest=sizes.fixed)
        self.bytes_per_pixel = metadata.bytes_per_pixel or self.bytes_per_pixel

    def _run(self, lr: Batch) -> Batch:
        with translated_errors("OpenVINO", lr.shape):
            parts = [lr[n : n + 1] for n in range(len(lr))] if self._is_static else [lr]
            found = [self._session.run([OUTPUT_NAME], {INPUT_NAME: part})[0] for part in parts]
            return found[0] if len(found) == 1 else np.concatenate(found)


def _on_device(running: str) -> str:
    """Return the arithmetic on a GPU or NPU: fp16 for fp16 graphs, else fp32."""
    return "fp16" if running == "fp16" else "fp32"


def _arithmetic(graph: str, running: str) -> str:
    """Return the arithmetic for a graph's floating-point operators.

    bf16 graphs and the float part of int8 graphs use bf16 where it is faster, and else fp32. fp16
    graphs always use fp32.
    """
    if graph in ("int8", "bf16"):
        return "bf16" if computes_bf16() else "fp32"
    return running if running in RUNTIMES["openvino"].precisions else "fp32"
