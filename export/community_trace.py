"""Trace another project's network to a graph, and find the sizes at which it equals torch.

torch's TorchScript exporter comes first: for these networks it takes seconds, where torch.export
takes minutes and ends the process for some. A traced graph may be wrong at other sizes than the
traced one, where a network's code computes with sizes as numbers. So the graph is run at other
sizes, and the smallest multiple is declared at which it equals torch; if there is none, the network
is exported for one fixed size, and backends cut pictures into tiles of that.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from agsr.contract import INPUT_NAME, OUTPUT_NAME, Precision, SizeRule
from agsr.errors import AgsrError, ExportError
from agsr.export.fidelity import Run
from agsr.export.sorting import SortByTopK
from agsr.export.tracing import quietly
from agsr.export.verify import sample_batch
from agsr.system.optional_import import require
from agsr.system.text import first_line

ABSOLUTE: dict[Precision, float] = {"fp32": 2e-3, "fp16": 0.03, "bf16": 0.1, "int8": 0.4}
"""Largest difference from torch in fp32, of the range: ½ level of 255, 8, 25 and 102. Single pixels
may be that far off in reduced precision; `agsr.export.community.MEAN` limits the whole."""

TRACED = (32, 64)
"""Height and width of the traced input, before it is padded to an accepted size: multiples of the
windows that networks use."""

FIXED = (128, 128)
"""Height and width of an export for one size, before it is padded to an accepted one."""

MULTIPLES = (1, 2, 4, 8, 16, 32)
"""Multiples that are tried, smallest first."""


@dataclass(frozen=True)
class Sized:
    """A graph, and the sizes at which it equals torch."""

    model: onnx.ModelProto
    """The graph; its arithmetic is that of the traced module. It accepts only one picture a call if
    it would be wrong for several."""
    sizes: SizeRule
    """Where it is right."""
    exporter: str
    """What traced it: ``torchscript`` or ``dynamo``."""


def trace(
    module: nn.Module, exact: Run, sizes: SizeRule, opset: int, tolerance: float, source: str
) -> Sized:
    """Trace a network.

    Args:
        module: ``(B, 3, H, W)`` float32 → ``(B, 3, sH, sW)`` float32.
        exact: The same network in torch fp32, to compare with.
        sizes: Sizes that it accepts.
        opset: ONNX opset.
        tolerance: Largest difference from ``exact``, of the range.
        source: Name of the file, for messages.

    Raises:
        ExportError: No exporter can, or no graph equals torch.
    """
    failures = []
    traced, only = sizes.padded(*TRACED), sizes.padded(*FIXED)
    for exporter, convert in (("torchscript", _script), ("dynamo", _dynamo)):
        try:
            model = convert(module, traced, opset, True)
            found = _dynamic_sizes(model, exact, sizes, tolerance)
            if found is None:
                model, found = convert(module, only, opset, False), SizeRule(fixed=only)
                if not _equals(_runner(model), exact, [only], tolerance):
                    failures.append(f"{exporter}: its graph differs from torch, even at {only}")
                    continue
        except AgsrError:  # a package is missing
            raise
        except Exception as error:  # exporters and runtimes raise anything, naming internals
            failures.append(f"{exporter}: {_reason(error)}")
            continue
        if not _takes_pairs(_runner(model), verification_shapes(found)[0], tolerance):
            _fix_batch(model)
        return Sized(model, found, exporter)
    raise ExportError(
        f"{source}: can't be exported to ONNX: {'; '.join(failures)}; run it with --backend torch"
    )


def verification_shapes(sizes: SizeRule) -> list[tuple[int, int]]:
    """Return heights and widths to compare a graph at: odd multiples, none of them traced."""
    if sizes.fixed is not None:
        return [sizes.fixed]
    pairs = ((17, 40), (40, 23))
    return list(dict.fromkeys(sizes.padded(*_odd(pair, sizes.multiple)) for pair in pairs))


def _odd(pair: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return odd multiples of a number, about as large as these."""
    height, width = (multiple * (-(-side // multiple) | 1) for side in pair)
    return height, width


def _reason(error: Exception) -> str:
    """Return the first sentence of an exporter's message, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", first_line(error)).partition(". ")[0]


def _dynamic_sizes(
    model: onnx.ModelProto, exact: Run, sizes: SizeRule, tolerance: float
) -> SizeRule | None:
    """Return the sizes at which a graph with dynamic height and width equals torch, if any."""
    if sizes.square:
        return None
    exported = _runner(model)
    for multiple in _multiples(sizes.multiple):
        minimum = -(-sizes.minimum // multiple) * multiple if sizes.minimum > 1 else 1
        rule = SizeRule(minimum=minimum, multiple=multiple)
        if _equals(exported, exact, verification_shapes(rule), tolerance):
            return rule
    return None


def _multiples(required: int) -> Iterator[int]:
    yield from dict.fromkeys(math.lcm(required, multiple) for multiple in MULTIPLES)


def _takes_pairs(exported: Run, shape: tuple[int, int], tolerance: float) -> bool:
    """Return True if two pictures a call come out as each alone, to 1/20 of the tolerance."""
    pair = sample_batch(2, *shape)
    try:
        together = exported(pair)
    except Exception:  # as in `_equals`
        return False
    alone = np.concatenate((exported(pair[:1]), exported(pair[1:])))
    return together.shape == alone.shape and np.abs(together - alone).max() <= tolerance / 20


def _equals(exported: Run, exact: Run, shapes: list[tuple[int, int]], tolerance: float) -> bool:
    """Return True if the graph runs at these sizes and equals torch."""
    for height, width in shapes:
        lr = sample_batch(1, height, width)
        try:
            found, expected = exported(lr), exact(lr)
        except Exception:  # ONNX Runtime raises its own types, derived from Exception
            return False
        if found.shape != expected.shape or not np.abs(found - expected).max() <= tolerance:
            return False
    return True


def _fix_batch(model: onnx.ModelProto) -> None:
    """Declare that the graph accepts one picture a call: the trace holds their number."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]


def _runner(model: onnx.ModelProto) -> Run:
    """Return a function that runs a graph; one with bf16, which ONNX Runtime lacks, by OpenVINO."""
    content = model.SerializeToString()
    if any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer):
        openvino = require("openvino", extra="cpu", purpose="Verifying a bf16 export")
        core = openvino.Core()
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(content, b""), "CPU", exact)
        return lambda lr: np.asarray(compiled([lr])[0], np.float32)
    ort = require("onnxruntime", extra="cpu", purpose="Verifying an export")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # sizes that don't fit are expected, and not printed
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda lr: np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0])


def _script(module: nn.Module, size: tuple[int, int], opset: int, dynamic: bool) -> onnx.ModelProto:
    """Trace by the TorchScript exporter."""
    axes = {0: "batch", 2: "height", 3: "width"}
    large = {0: "batch", 2: "large_height", 3: "large_width"}
    content = io.BytesIO()
    options: dict[str, Any] = {"dynamic_axes": {INPUT_NAME: axes, OUTPUT_NAME: large}}
    _export(module, size, opset, f=content, dynamo=False, **(options if dynamic else {}))
    return onnx.load_model_from_string(content.getvalue())


def _dynamo(module: nn.Module, size: tuple[int, int], opset: int, dynamic: bool) -> onnx.ModelProto:
    """Trace by torch.export."""
    automatic = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    options: dict[str, Any] = {"dynamic_shapes": (automatic,)} if dynamic else {}
    common = {"external_data": False, "optimize": True, "verbose": False}
    program = _export(module, size, opset, dynamo=True, **common, **options)
    if program is None:
        raise ExportError("torch.onnx gave no program")
    model: onnx.ModelProto = program.model_proto
    return model


def _export(
    module: nn.Module, size: tuple[int, int], opset: int, **options: Any
) -> torch.onnx.ONNXProgram | None:
    # torch.export specialises on sizes of 0 and 1, so it gets two pictures. A trace may hold their
    # number, as that of windows per picture does, and every picture here is a batch of one.
    example = torch.from_numpy(sample_batch(2 if "dynamic_shapes" in options else 1, *size))
    before = logging.root.manager.disable
    logging.disable(max(before, logging.ERROR))  # exporters log pages about a graph that fails
    try:
        with redirect_stdout(io.StringIO()), SortByTopK():
            return quietly(
                lambda: torch.onnx.export(
                    module,
                    (example,),
                    input_names=[INPUT_NAME],
                    output_names=[OUTPUT_NAME],
                    opset_version=opset,
                    **options,
                )
            )
    finally:
        logging.disable(before)
