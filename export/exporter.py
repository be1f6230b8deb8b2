"""Export a checkpoint to one verified ONNX file; a failed export leaves no file.

Data flow: checkpoint → `agsr.assembly`, or for networks without a loop `agsr.export.tracing` and
`agsr.export.graph_passes` → ONNX graph with named dynamic dimensions and
`agsr.contract.ModelMetadata` → `agsr.export.verify` and `agsr.export.fidelity` → file under its
final name.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import onnx

from agsr._version import __version__
from agsr.assembly.assemble import BF16_OPSET, DEFAULT_OPSET, assemble
from agsr.assembly.quantize import quantize
from agsr.assembly.weights import GeneratorWeights
from agsr.contract import ModelMetadata, Precision
from agsr.errors import ExportError, ExportRequestError
from agsr.export.calibration import Calibration, read_calibration
from agsr.export.fidelity import Fidelity, Run, measure
from agsr.export.graph_passes import check_graph, finalize, opset_of, separate_biases
from agsr.export.tracing import FixedPrecision, trace
from agsr.export.verify import SAMPLE_PHOTO, ParityRow, run_file, run_torch, sample_pair, verify
from agsr.model.base import Network
from agsr.model.checkpoint import Checkpoint
from agsr.model.generator import GeneratorConfig
from agsr.system.atomic_file import check_writable, complete_file

OLDEST_OPSET = 18
"""The native opset of torch's exporter; older ones gave invalid models."""

NEWEST_OPSET = 24
"""The newest opset that exports and runs with the pinned versions."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Description of an exported file, and its differences from torch.

    >>> export_onnx(checkpoint, Path("psnr.onnx"), steps=4).operators["Conv"]  # doctest: +SKIP
    93
    """

    path: str
    """The ONNX file."""
    size: int
    """Its size in bytes."""
    metadata: ModelMetadata
    """Metadata in the file."""
    opset: int
    """ONNX opset."""
    operators: dict[str, int]
    """Number of operators by type."""
    tolerance: float
    """Largest allowed difference from torch, in units of the range."""
    parity: tuple[ParityRow, ...]
    """Measured differences, one row per input shape."""
    fidelity: Fidelity | None = None
    """Loss of PSNR by the precision; None for fp32."""

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2)


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    *,
    steps: int | None = None,
    precision: Precision = "fp32",
    opset: int | None = None,
    tolerance: float | None = None,
    calibrate: Path | None = None,
) -> ExportReport:
    """Export a checkpoint and verify the result.

    >>> report = export_onnx(checkpoint, Path("psnr.onnx"), steps=4)  # doctest: +SKIP

    Args:
        checkpoint: Trained weights.
        path: Output file; an existing one is replaced only after verification.
        steps: Time steps to unroll; None means the network's default.
        precision: Arithmetic inside the graph.
        opset: ONNX opset, `OLDEST_OPSET` to `NEWEST_OPSET`; None means `DEFAULT_OPSET`, for bf16
            `BF16_OPSET`.
        tolerance: Largest difference from torch in fp32, in units of the range; None means the
            precision's own (`agsr.export.verify.TOLERANCE`).
        calibrate: Folder of photographs, for int8 only: its ranges and loss are measured on them.

    Raises:
        ExportError: The step count or opset is out of range, the photographs are missing, or the
            graph failed verification.
        OSError: The file can't be written; checked before the export.
    """
    check_writable(path)
    opset = choose_opset(opset, precision)
    network = checkpoint.build()
    steps = network.default_steps if steps is None else steps
    try:
        network.check_steps(steps)
    except ValueError as error:
        raise ExportError(str(error)) from None
    calibration = calibration_for(calibrate, precision)
    metadata = _metadata(checkpoint, steps, precision)
    if isinstance(checkpoint.config, GeneratorConfig):
        model = _assembled(checkpoint, checkpoint.config, metadata, opset, calibration)
        operators = check_graph(model)
    else:
        model = _traced(network, precision, opset, calibration)
        operators = finalize(model, metadata)

    def check(file: Path) -> Checked:
        exact, exported = run_torch(checkpoint, steps), run_file(file, precision)
        allowed, parity = verify(exact, exported, steps, precision, tolerance)
        return Checked(allowed, parity, _fidelity(exact, exported, precision, calibration))

    return save_checked(model, path, metadata, operators, check)


def _assembled(
    checkpoint: Checkpoint,
    config: GeneratorConfig,
    metadata: ModelMetadata,
    opset: int,
    calibration: Calibration | None,
) -> onnx.ModelProto:
    """Write the graph of an attentive generator."""
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.weights.items()}
    content = assemble(
        GeneratorWeights(config=config, arrays=arrays),
        metadata.steps or 1,
        metadata.precision,
        opset=opset,
        measure=None if calibration is None else calibration.magnitudes,
    )
    return onnx.load_from_string(content)


def _traced(
    network: Network, precision: Precision, opset: int, calibration: Calibration | None
) -> onnx.ModelProto:
    """Trace a network without a loop."""
    model = trace(FixedPrecision(network, precision).eval(), opset)
    separate_biases(model)
    if calibration is not None:
        quantize(model, calibration.magnitudes)
    return model


class Checked(NamedTuple):
    """What comparing a file with torch gave; see `ExportReport`."""

    tolerance: float
    parity: tuple[ParityRow, ...]
    fidelity: Fidelity | None


def save_checked(
    model: onnx.ModelProto,
    path: Path,
    metadata: ModelMetadata,
    operators: dict[str, int],
    check: Callable[[Path], Checked],
) -> ExportReport:
    """Write a graph, which appears under its name only after it was compared with torch.

    Args:
        model: The finished graph.
        path: Output file.
        metadata: That of the graph.
        operators: Number of operators by type.
        check: Compares the temporary file, and raises if it differs.

    Raises:
        ExportError: From ``check``; then nothing is written.
        OSError: The file can't be written.
    """
    replaced = _weights_at(path)
    with complete_file(path) as temporary:
        onnx.save(model, temporary)
        checked = check(temporary)
    _log_replaced(path, replaced, metadata.weights_hash)
    return ExportReport(
        path=str(path),
        size=path.stat().st_size,
        metadata=metadata,
        opset=opset_of(model),
        operators=operators,
        **checked._asdict(),
    )


def _weights_at(path: Path) -> str | None:
    """Return the hash of the weights in an export; empty for another file, None for no file."""
    if not path.is_file():
        return None
    try:
        old = onnx.load(path, load_external_data=False)
        properties = {entry.key: entry.value for entry in old.metadata_props}
        return ModelMetadata.from_properties(properties, str(path)).weights_hash
    except Exception:  # protobuf raises its own types
        return ""


def _log_replaced(path: Path, old: str | None, new: str) -> None:
    """Log that a file was replaced; a warning if it had other weights."""
    if old is None:
        return
    if old == new:
        _log.info("%s: replaced; it had the same weights", path)
    elif old:
        _log.warning("%s: replaced; it had other weights (%.8s, now %.8s)", path, old, new)
    else:
        _log.warning("%s: replaced; it was not a file of 'agsr export'", path)


def choose_opset(requested: int | None, precision: Precision) -> int:
    """Return the opset to export with.

    Raises:
        ExportRequestError: The requested one is out of range for this precision.
    """
    oldest = BF16_OPSET if precision == "bf16" else OLDEST_OPSET
    opset = max(DEFAULT_OPSET, oldest) if requested is None else requested
    if not oldest <= opset <= NEWEST_OPSET:
        raise ExportRequestError(
            f"opset is {opset}; expected {oldest} to {NEWEST_OPSET} for {precision}"
        )
    return opset


def calibration_for(folder: Path | None, precision: Precision) -> Calibration | None:
    """Return the photographs that a precision needs: those of a folder, for int8 only.

    Raises:
        ExportRequestError: int8 has none.
        ExportError: There are too few.
    """
    if precision != "int8":
        return None
    if folder is None:
        raise ExportRequestError(
            "int8 needs photographs to calibrate on; name a folder of them with --calibrate"
        )
    return read_calibration(folder)


def _metadata(checkpoint: Checkpoint, steps: int, precision: Precision) -> ModelMetadata:
    return ModelMetadata(
        steps=steps,
        precision=precision,
        receptive_radius=checkpoint.config.receptive_radius(steps),
        config=json.dumps(dataclasses.asdict(checkpoint.config)),
        weights_hash=checkpoint.weights_hash,
        version=__version__,
    )


def _fidelity(
    exact: Run, exported: Run, precision: Precision, calibration: Calibration | None
) -> Fidelity | None:
    """Measure the loss of a precision: int8 on held-out photographs, others on the sample photo."""
    if precision == "fp32":
        return None
    if calibration is None:
        return measure(exact, exported, [sample_pair()], SAMPLE_PHOTO.name, precision)
    return measure(exact, exported, calibration.held_out, calibration.source, precision)
