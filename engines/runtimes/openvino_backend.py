"""The OpenVINO backend: a self-describing ``.onnx`` file on an x86-64 processor."""

from __future__ import annotations

from pathlib import Path

from agsr.backend import Backend, BackendInfo, Batch, translated_errors
from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata
from agsr.engines.onnx_file.checks import check_file, check_ports, running_precision
from agsr.engines.onnx_file.inspect import read_properties
from agsr.engines.runtimes.openvino_session import PRECISIONS, computes_bf16, open_compiled
from agsr.errors import BackendError, UnknownWeightsError
from agsr.pretrained import missing_file
from agsr.system.cpu import multiplies_int8
from agsr.tiling import AUTO_AREA_BF16


class OpenVinoBackend(Backend):
    """Runs an ONNX file exported by ``agsr export``, compiled for this processor.

    Args:
        path: ONNX file.
        precision: Arithmetic. Of an fp32 graph, one of
            `agsr.engines.runtimes.openvino_session.PRECISIONS`; any other graph has its own, which
            this must name, and runs in fp32 where the processor lacks bf16. None takes what is
            there, of an fp32 graph fp32.
        threads: At most one per core; None means one per core.

    Raises:
        ModelError: The file is not an ONNX model that keeps the contract.
        BackendError: It can't run in what is asked for.
        MissingDependencyError: openvino is not installed.
    """

    bytes_per_pixel = 6_000

    def __init__(
        self, path: Path, *, precision: str | None = None, threads: int | None = None
    ) -> None:
        if not path.is_file():
            raise UnknownWeightsError(missing_file(path))
        check_file(path)
        metadata = ModelMetadata.from_properties(read_properties(path), str(path))
        running = running_precision(path, metadata.precision, precision, PRECISIONS, "openvino")
        if running == "int8" and not multiplies_int8():
            raise BackendError(
                f"{path}: int8 sums overflow in OpenVINO on this processor, which has neither VNNI "
                "nor AMX; use --precision fp32, which is faster here, or --backend ort"
            )
        hint = _arithmetic(metadata.precision, running)
        if hint == "bf16":
            self.bytes_per_pixel, self.tile_area = 3_000, AUTO_AREA_BF16
        self._session = open_compiled(path, hint, threads, keep=True)
        check_ports(self._session, path)
        self.info = BackendInfo(
            name="openvino",
            device="CPU",
            precision=running,
            steps=metadata.steps,
            receptive_radius=metadata.receptive_radius,
            model=str(path),
            weights_hash=metadata.weights_hash,
        )

    def _run(self, lr: Batch) -> Batch:
        with translated_errors("OpenVINO", lr.shape):
            sr: Batch = self._session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0]
            return sr


def _arithmetic(graph: str, running: str) -> str:
    """OpenVINO's hint for a graph: bf16 graphs, and what int8 graphs leave in floats, gain by bf16.

    Where bf16 gains nothing they are computed in fp32, as fp16 graphs are everywhere.
    """
    if graph in ("int8", "bf16"):
        return "bf16" if computes_bf16() else "fp32"
    return running if running in PRECISIONS else "fp32"
