"""Trace a network without a loop to an ONNX graph: torch.onnx at one size, with dynamic batch,
height and width.

`agsr.assembly` writes the graph of the attentive generator without tracing.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import onnx
import torch
from torch import Tensor, nn

from agsr.contract import INPUT_NAME, OUTPUT_NAME, Precision
from agsr.errors import ExportError
from agsr.export.graph_passes import opset_of
from agsr.model.base import Network

_SIZE = (2, 24, 32)  # a batch of two: the exporter specialises on sizes of 0 and 1
_TYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class FixedPrecision(nn.Module):
    """``lr`` → ``sr`` in one step; float32 outside, ``precision`` inside.

    Args:
        network: Trained network; changed in place.
        precision: ``"fp16"`` and ``"bf16"`` add one cast after ``lr`` and one before ``sr``, none
            in between. ``"int8"`` is float32 here; `agsr.assembly.quantize` converts it later.
    """

    def __init__(self, network: Network, precision: Precision) -> None:
        super().__init__()
        self._inner = _TYPES.get(precision, torch.float32)
        self.network = network.to(self._inner).eval().requires_grad_(False)

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W)`` float32 → ``(B, 3, 4H, 4W)`` float32."""
        sr: Tensor = self.network(lr.to(self._inner), 1)
        return sr.to(torch.float32)


def trace(network: FixedPrecision, opset: int) -> onnx.ModelProto:
    """Trace a network.

    Raises:
        ExportError: The exporter failed, or can't write the opset.
    """
    dynamic = {0: "batch", 2: "height", 3: "width"}
    shape = {axis: torch.export.Dim(name) for axis, name in dynamic.items()}
    program = quietly(
        lambda: torch.onnx.export(
            network.eval(),
            (torch.zeros(_SIZE[0], 3, *_SIZE[1:]),),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=(shape,),
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
    if opset_of(model) != opset:  # the exporter only logs that its conversion failed
        raise ExportError(f"requested opset {opset}, the exporter made {opset_of(model)}")
    return model


def quietly(
    call: Callable[[], torch.onnx.ONNXProgram | None],
) -> torch.onnx.ONNXProgram | None:
    """Run the exporter without its warnings about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    finally:
        logger.setLevel(level)
