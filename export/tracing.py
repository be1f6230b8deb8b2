"""Trace a network to an ONNX graph: torch.onnx at one size, with dynamic batch, height and width.

The loop is traced one step at a time, because tracing takes minutes for many steps, and the graphs
are joined: first step → as many later steps as requested → reconstruction.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import onnx
import torch
from torch import Tensor, nn

from agsr.contract import INPUT_NAME, OUTPUT_NAME
from agsr.errors import ExportError
from agsr.export.graph_passes import chain, opset_of
from agsr.export.unrolled import UnrolledNetwork

_SIZE = (2, 24, 32)  # a batch of two: the exporter specialises on sizes of 0 and 1
_STATE = ("hidden", "map")
_CONTEXT = ("pixels", "shallow", "joined")


def trace(network: UnrolledNetwork, opset: int) -> onnx.ModelProto:
    """Trace a network with its step count.

    Raises:
        ExportError: The exporter failed, or can't write the opset.
    """
    example = torch.zeros(_SIZE[0], 3, *_SIZE[1:])
    if not network.has_parts or network.steps == 1:
        return _trace(network, {INPUT_NAME: example}, [OUTPUT_NAME], opset)
    with torch.inference_mode():
        values = dict(zip((*_CONTEXT, *_STATE), network.first(example), strict=True))
    first = _trace(_Part(network, network.first), {INPUT_NAME: example}, list(values), opset)
    read = {name: values[name] for name in ("joined", *_STATE)}
    step = _trace(_Part(network, network.step), read, [f"{name}_next" for name in _STATE], opset)
    read = {name: values[name] for name in ("pixels", "shallow", *_STATE)}
    last = _trace(_Part(network, network.last), read, [OUTPUT_NAME], opset)
    return chain(first, step, last, network.steps - 1)


class _Part(nn.Module):
    """A method of a network as a module, whose weights have the network's names."""

    def __init__(self, network: UnrolledNetwork, method: Callable[..., object]) -> None:
        super().__init__()
        self.network = network.network
        self._method = method

    def forward(self, *values: Tensor) -> object:
        return self._method(*values)


def _trace(
    module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    dynamic = {0: "batch", 2: "height", 3: "width"}
    shape = {axis: torch.export.Dim(name) for axis, name in dynamic.items()}
    shapes = tuple(shape for _ in inputs)
    program = quietly(
        lambda: torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes if isinstance(module, UnrolledNetwork) else (shapes,),
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
