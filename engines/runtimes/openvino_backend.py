"""OpenVINO backend: a self-describing ``.onnx`` file on an x86-64 processor."""

from __future__ import annotations

from pathlib import Path

from agsr.backend import Backend, BackendInfo, Batch, translated_errors
from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata
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
from agsr.errors import BackendError
from agsr.pretrained import require_file
from agsr.system.cpu import multiplies_int8
from agsr.tiling import AUTO_AREA_BF16


class OpenVinoBackend(Backend):
    """Runs an ONNX file exported by ``agsr export``, compiled for this processor.

    Args:
        path: ONNX file.
        precision: Arithmetic. For an fp32 graph, fp32 or bf16; any other graph has its own, which
            must be given here, and is computed in fp32 if the processor lacks bf16. None means the
            graph's.
        threads: At most one per core; None means one per core.

    Raises:
        ModelError: The file is not an ONNX model that follows the contract.
        BackendError: It can't run in the requested precision.
        MissingDependencyError: openvino is not installed.
    """

    bytes_per_pixel = 6_000

    def __init__(
        self, path: Path, *, precision: str | None = None, threads: int | None = None
    ) -> None:
        require_file(path)
        check_file(path)
        metadata = ModelMetadata.from_properties(read_properties(path), str(path))
        choices = RUNTIMES["openvino"].precisions
        running = running_precision(path, metadata.precision, precision, choices, "openvino")
        if running == "int8" and not multiplies_int8():
            raise BackendError(
                f"{path}: int8 sums overflow in OpenVINO on this processor, which has neither VNNI "
                "nor AMX; use --precision fp32, which is faster here, or --backend ort"
            )
        hint = _arithmetic(metadata.precision, running)
        if hint == "bf16":
            self.bytes_per_pixel, self.tile_area = 3_000, AUTO_AREA_BF16
        self._session = open_compiled(path, hint, threads, cached=True)
        check_io(self._session, path)
        self.info = BackendInfo(
            name="openvino",
            device="CPU",
            precision=running,
            model=str(path),
            **described(metadata),
        )
        self.sizes, self.tile_align = metadata.sizes, tile_align(metadata)
        self.bytes_per_pixel = metadata.bytes_per_pixel or self.bytes_per_pixel

    def _run(self, lr: Batch) -> Batch:
        with translated_errors("OpenVINO", lr.shape):
            sr: Batch = self._session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0]
            return sr


def _arithmetic(graph: str, running: str) -> str:
    """Return the arithmetic for a graph's floating-point operators.

    bf16 graphs and the float part of int8 graphs use bf16 where it is faster, and else fp32. fp16
    graphs always use fp32.
    """
    if graph in ("int8", "bf16"):
        return "bf16" if computes_bf16() else "fp32"
    return running if running in RUNTIMES["openvino"].precisions else "fp32"
