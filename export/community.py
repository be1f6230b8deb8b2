"""Export another project's network: ``.pth`` → one verified, self-describing ONNX file.

Data flow: file → `agsr.engines.community.loader` → `agsr.export.community_trace` (a graph and the
sizes at which it equals torch) → `agsr.export.graph_passes`, for int8 `agsr.assembly.quantize` →
comparison with torch in fp32 → file under its final name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from agsr._version import __version__
from agsr.assembly.quantize import quantizable, quantize
from agsr.backend import Batch
from agsr.contract import INPUT_NAME, OUTPUT_NAME, SCALE, ModelMetadata, Precision, SizeRule
from agsr.engines.community.halo import cached_halo
from agsr.engines.community.loader import load_network
from agsr.engines.community.measurements import Subject
from agsr.engines.community.picture_network import TYPES, PictureNetwork
from agsr.engines.community.working_memory import bytes_per_pixel
from agsr.engines.network_facts import NetworkFacts
from agsr.errors import ExportError, ExportRequestError
from agsr.export.calibration import Calibration
from agsr.export.community_trace import ABSOLUTE, Sized, trace, verification_shapes
from agsr.export.exporter import (
    Checked,
    ExportReport,
    calibration_for,
    choose_opset,
    save_checked,
)
from agsr.export.fidelity import Fidelity, Run, measure
from agsr.export.graph_passes import CONTROL_FLOW, finalize, separate_biases
from agsr.export.sorting import StableSort
from agsr.export.verify import SAMPLE_PHOTO, ParityRow, compare, run_file, sample_batch, sample_pair
from agsr.system.atomic_file import check_writable

_ATTENTION = ("Softmax", "Sort", "TopK")
"""Operators of networks whose time is in products of computed values."""

MEAN: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 8e-3, "int8": 8e-3}
"""Largest accepted mean difference from torch in fp32, of the range: 0.03 levels of 255, ½, 2 and
2. A black picture, or one with NaN, is far above."""


def export_community(
    source: Path,
    path: Path,
    *,
    precision: Precision = "fp32",
    opset: int | None = None,
    tolerance: float | None = None,
    calibrate: Path | None = None,
) -> ExportReport:
    """Export another project's weights and verify the result.

    >>> export_community(Path("4x.pth"), Path("4x.onnx"), precision="fp16")  # doctest: +SKIP

    Args:
        source: ``.pth`` or ``.safetensors`` file.
        path: Output file; an existing one is replaced only after verification.
        precision: Arithmetic inside the graph.
        opset: See `agsr.export.export_onnx`.
        tolerance: Largest difference from torch in fp32, of the range; None means
            `agsr.export.community_trace.ABSOLUTE`.
        calibrate: See `agsr.export.export_onnx`.

    Raises:
        ModelError: The file is not such a network.
        ExportRequestError: The options are wrong, or the architecture lacks the precision.
        ExportError: The network can't be exported, or the graph differs too much from torch.
        OSError: The file can't be written; checked before the export.
    """
    check_writable(path)
    opset = choose_opset(opset, precision)
    network = load_network(source)
    facts = network.facts
    _check_precision(facts, precision, source)
    calibration = calibration_for(calibrate, precision)
    calibration = None if calibration is None else calibration.at_scale(facts.scale)
    reference = PictureNetwork(network, "fp32").eval()
    exact = run_network(reference)
    inner = precision if precision in TYPES else "fp32"
    reduced = inner != "fp32"  # which changes the network in place
    module = PictureNetwork(load_network(source), inner).eval() if reduced else reference
    allowed = ABSOLUTE[precision] if tolerance is None else tolerance
    traced = trace(module, exact, facts.sizes, opset, ABSOLUTE[inner], str(source))
    model = traced.model
    separate_biases(model)
    if calibration is not None:
        _check_quantizable(facts, traced.sizes, model.graph, source)
        quantize(model, calibration.magnitudes)
    memory = bytes_per_pixel(reference, facts.sizes, torch.device("cpu"))
    metadata = _metadata(facts, precision, traced, memory)
    operators = finalize(model, metadata, CONTROL_FLOW)

    def check(file: Path) -> Checked:
        exported = _run_exported(file, precision)
        parity = _verified(exact, exported, traced.sizes, precision, allowed)
        return Checked(allowed, parity, _fidelity(exact, exported, metadata, calibration))

    return save_checked(model, path, metadata, operators, check)


def run_network(module: PictureNetwork) -> Run:
    """Return a function that runs a network in torch, in inputs of accepted size."""

    def run(lr: Batch) -> Batch:
        with torch.inference_mode(), StableSort():
            return np.ascontiguousarray(module(torch.from_numpy(lr)).numpy())

    return run


def _check_precision(facts: NetworkFacts, precision: Precision, source: Path) -> None:
    known = [*facts.precisions, *(["int8"] if facts.channels != 1 else [])]
    if precision not in known:
        raise ExportRequestError(
            f"{source}: {facts.architecture} doesn't support {precision}; export it in "
            f"{' or '.join(facts.precisions)}"
        )


def _check_quantizable(
    facts: NetworkFacts, sizes: SizeRule, graph: onnx.GraphProto, source: Path
) -> None:
    """Reject int8 for networks that aren't made of convolutions: nothing else is quantized."""
    reason = ""
    if sizes != SizeRule(minimum=sizes.minimum):
        reason = f"it is calibrated on photographs of any size, and this one accepts {sizes}"
    elif any(node.op_type in _ATTENTION for node in graph.node):
        reason = "this one computes attention, which would stay fp32"
    elif not quantizable(graph):
        reason = "this one has none beside its first and its last"
    if reason:
        raise ExportError(
            f"{source}: {facts.architecture} can't be exported in int8, which is for networks of "
            f"convolutions: {reason}; use fp16 or bf16"
        )


def _metadata(
    facts: NetworkFacts, precision: Precision, traced: Sized, memory: int
) -> ModelMetadata:
    config: dict[str, Any] = {"tags": facts.tags, "channels": facts.channels}
    config |= {"exporter": traced.exporter}
    halo = cached_halo(Subject.of_file(facts.sha256, "fp32", facts.sizes))
    if halo is not None:
        config |= {"halo": halo.halo, "halo_difference": halo.difference}
    return ModelMetadata(
        precision=precision,
        config=json.dumps(config),
        weights_hash=facts.sha256,
        version=__version__,
        scale=facts.scale,
        architecture=facts.architecture,
        sizes=traced.sizes,
        tiling=facts.tiling,
        bytes_per_pixel=memory,
    )


def _run_exported(path: Path, precision: Precision) -> Run:
    """Return a function that runs the file on this CPU.

    ONNX Runtime has no bf16 operators on CPUs. There OpenVINO runs the file, with the rounded
    weights, and in fp32 arithmetic unless the processor has bf16 units.
    """
    if precision != "bf16":
        return run_file(path, precision)
    from agsr.engines.runtimes.openvino_session import open_compiled

    session = open_compiled(path, "fp32", None)
    return lambda lr: np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0], np.float32)


def _verified(
    exact: Run, exported: Run, sizes: SizeRule, precision: Precision, allowed: float
) -> tuple[ParityRow, ...]:
    """Compare the file with torch in fp32 at several sizes.

    Raises:
        ExportError: It differs by more than allowed.
    """
    rows = []
    for height, width in verification_shapes(sizes):
        shape = (1, height, width)
        lr = sample_batch(*shape)
        rows.append(compare(shape, exported(lr), exact(lr)))
    worst = max(rows, key=lambda row: row.largest)
    mean = max(row.mean for row in rows)
    if not (worst.largest <= allowed and mean <= MEAN[precision]):
        raise ExportError(
            f"{precision}: at {worst.shape} the file differs from torch by "
            f"{worst.largest * 255:.2g} levels of 255, {mean * 255:.2g} on average; allowed "
            f"{allowed * 255:.2g} and {MEAN[precision] * 255:.2g}; nothing was written; use "
            "another --precision"
        )
    return tuple(rows)


def _fidelity(
    exact: Run, exported: Run, metadata: ModelMetadata, calibration: Calibration | None
) -> Fidelity | None:
    """Measure the loss of PSNR by a reduced precision; by fp16 and bf16 for ×4, on one photo."""
    if calibration is not None:
        photos, source = calibration.held_out, calibration.source
        return measure(exact, exported, photos, source, "int8", metadata.scale)
    if metadata.precision == "fp32" or metadata.scale != SCALE:
        return None
    if metadata.sizes.padded(32, 32) != (32, 32):
        return None
    return measure(exact, exported, [sample_pair()], SAMPLE_PHOTO.name, metadata.precision)
