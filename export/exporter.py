"""The exporter: traces `UnrolledNetwork`, writes one clean file, verifies it, or leaves nothing.

Data flow: checkpoint → `agsr.export.unrolled` → ONNX graph with named dynamic dimensions →
`agsr.export.graph_passes` (→ `agsr.export.quantize` for int8), with `agsr.contract.ModelMetadata` →
`agsr.export.verify` and `agsr.export.fidelity` → file under its final name.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import torch

from agsr._version import __version__
from agsr.contract import INPUT_NAME, OUTPUT_NAME, ModelMetadata, Precision
from agsr.errors import ExportError, ExportRequestError
from agsr.export.calibration import Calibration, read_calibration
from agsr.export.fidelity import Fidelity, Run, measure
from agsr.export.graph_passes import separate_biases
from agsr.export.quantize import quantize
from agsr.export.unrolled import UnrolledNetwork
from agsr.export.verify import SAMPLE_PHOTO, ParityRow, run_file, run_torch, sample_pair, verify
from agsr.model.checkpoint import Checkpoint
from agsr.system.atomic_file import check_writable, complete_file

DEFAULT_OPSET = 20
"""ONNX opset where nothing else is asked for."""

OLDEST_OPSET = 18
"""The exporter's own; older ones gave invalid models."""

BF16_OPSET = 22
"""The first in which Conv takes bf16, and the default for it."""

NEWEST_OPSET = 24
"""The newest that exports and runs with the pinned versions."""

FORBIDDEN_OPS = frozenset({"Resize", "Upsample", "Loop", "Scan", "If"})
"""Operators that an export must not contain: the loop is unrolled, and nothing is interpolated."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and how far it is from torch."""

    path: str
    """The ONNX file."""
    size: int
    """Its size in bytes."""
    metadata: ModelMetadata
    """What the file says about itself."""
    opset: int
    """ONNX opset."""
    operators: dict[str, int]
    """Operator types and how often each occurs."""
    tolerance: float
    """Largest difference from torch that was allowed, in units of the range."""
    parity: tuple[ParityRow, ...]
    """Differences found, one row per input shape."""
    fidelity: Fidelity | None = None
    """What the precision costs in PSNR; None for fp32."""

    def to_json(self) -> str:
        """The report as JSON."""
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

    Args:
        checkpoint: Trained weights.
        path: Where the file goes; an existing one is replaced after verification only.
        steps: Time steps to unroll; None means the network's default.
        precision: Arithmetic inside the graph.
        opset: ONNX opset, `OLDEST_OPSET` to `NEWEST_OPSET`; None means `DEFAULT_OPSET`, for bf16
            `BF16_OPSET`.
        tolerance: Largest difference from torch in fp32, in units of the range; None means the
            precision's own (`agsr.export.verify.TOLERANCE`).
        calibrate: Folder of photographs, for int8 only: its ranges and its loss come from them.

    Raises:
        ExportError: The step count or opset is out of range, the photographs are missing, or the
            graph failed verification.
        OSError: The file can't be written; that is checked before the work.
    """
    check_writable(path)
    opset = _choose_opset(opset, precision)
    network = checkpoint.build()
    steps = network.default_steps if steps is None else steps
    try:
        network.check_steps(steps)
    except ValueError as error:
        raise ExportError(str(error)) from None
    calibration = _calibration(calibrate, precision)
    module = UnrolledNetwork(network, steps, precision).eval()
    model = _trace(module, opset)
    separate_biases(model)
    if calibration is not None:
        quantize(model, calibration.measured, module.exact)
    metadata = _metadata(checkpoint, steps, precision)
    operators = _clean(model, metadata)
    replaced = _weights_at(path)
    with complete_file(path) as temporary:
        onnx.save(model, temporary)
        exact, exported = run_torch(checkpoint, steps), run_file(temporary, precision)
        allowed, parity = verify(exact, exported, steps, precision, tolerance)
        fidelity = _fidelity(exact, exported, precision, calibration)
    _log_replaced(path, replaced, metadata.weights_hash)
    return ExportReport(
        path=str(path),
        size=path.stat().st_size,
        metadata=metadata,
        opset=_opset(model),
        operators=operators,
        tolerance=allowed,
        parity=parity,
        fidelity=fidelity,
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


def _choose_opset(asked: int | None, precision: Precision) -> int:
    oldest = BF16_OPSET if precision == "bf16" else OLDEST_OPSET
    opset = max(DEFAULT_OPSET, oldest) if asked is None else asked
    if not oldest <= opset <= NEWEST_OPSET:
        raise ExportRequestError(
            f"opset is {opset}; expected {oldest} to {NEWEST_OPSET} for {precision}"
        )
    return opset


def _calibration(folder: Path | None, precision: Precision) -> Calibration | None:
    if precision != "int8":
        return None
    if folder is None:
        raise ExportRequestError("int8 needs photographs to calibrate on: name a folder of them")
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
    """What the precision costs: int8 on photographs held out, others on the sample photo."""
    if precision == "fp32":
        return None
    if calibration is None:
        return measure(exact, exported, [sample_pair()], SAMPLE_PHOTO.name, precision)
    return measure(exact, exported, calibration.held_out, calibration.source, precision)


def _trace(module: UnrolledNetwork, opset: int) -> onnx.ModelProto:
    # Two of everything: the exporter specialises on sizes of 0 and 1.
    example = torch.zeros(2, 3, 24, 32)
    dynamic = {0: "batch", 2: "height", 3: "width"}
    program = _quietly(
        lambda: torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({k: torch.export.Dim(v) for k, v in dynamic.items()},),
            opset_version=opset,
            dynamo=True,
            external_data=False,
            optimize=True,
            verbose=False,
        )
    )
    if program is None:
        raise ExportError("torch.onnx gave no program; the tests run with torch 2.13.0")
    model = program.model_proto
    if _opset(model) != opset:  # the exporter only logs that its conversion failed
        raise ExportError(f"opset {opset} was asked for, the exporter made {_opset(model)}")
    return model


def _opset(model: onnx.ModelProto) -> int:
    """Version of the default operator domain."""
    return next(int(i.version) for i in model.opset_import if i.domain in ("", "ai.onnx"))


def _quietly(
    call: Callable[[], torch.onnx.ONNXProgram | None],
) -> torch.onnx.ONNXProgram | None:
    """Run the exporter without the warnings it gives about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    finally:
        logger.setLevel(level)


def _clean(model: onnx.ModelProto, metadata: ModelMetadata) -> dict[str, int]:
    """Strip traces of the exporting machine, add our metadata; returns the operator counts."""
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.metadata_props[:], model.metadata_props[:]
    graph.doc_string = model.doc_string = ""
    graph.name = "agsr"
    model.producer_name, model.producer_version = "agsr", metadata.version
    onnx.helper.set_model_props(model, metadata.to_properties())
    onnx.checker.check_model(model, full_check=True)
    operators: dict[str, int] = {}
    for node in graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    forbidden = sorted(FORBIDDEN_OPS & operators.keys())
    if forbidden or len(model.functions):
        raise ExportError(f"the graph holds {', '.join(forbidden) or 'functions'}: not unrolled")
    return dict(sorted(operators.items()))
