"""Small foreign ONNX graphs with a known result: they repeat every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from agsr.backend import Batch

KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
FREE = ("b", 3, "h", "w")

node = helper.make_node


def repeated(lr: Batch, scale: int = 4) -> Batch:
    """Return the output of every graph here."""
    return lr.repeat(scale, axis=2).repeat(scale, axis=3)


def repeated_image(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Repeat the pixels of an image ``(H, W[, C])``."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def repeat(source: str, target: str = "enlarged") -> Any:
    """The node that repeats pixels, as the constant ``scales`` says."""
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return node("Resize", [source, "", "scales"], [target], mode="nearest", **options)


def save(
    path: Path,
    nodes: list[Any],
    shape: tuple[Any, ...] = FREE,
    *,
    kinds: tuple[str, str] = ("float32", "float32"),
    domain: str = "",
    **constants: Any,
) -> Path:
    """Write a graph from ``picture`` to ``enlarged``, whose shape is left to the run time."""
    constants = {"scales": np.array([1, 1, 4, 4], np.float32), **constants}
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    given = helper.make_tensor_value_info("picture", KINDS[kinds[0]], shape)
    result = helper.make_tensor_value_info("enlarged", KINDS[kinds[1]], [None] * 4)
    graph = helper.make_graph(nodes, "foreign", [given], [result], weights)
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def repeating(
    path: Path,
    *,
    layout: str = "NCHW",
    channels: int = 3,
    size: tuple[Any, Any] = ("h", "w"),
    scale: int = 4,
    kind: str = "float32",
) -> Path:
    """A network that repeats pixels. It computes in float32, whatever its input type."""
    shape = ("b", channels, *size) if layout == "NCHW" else ("b", *size, channels)
    scales = [1, 1, scale, scale] if layout == "NCHW" else [1, scale, scale, 1]
    nodes = [
        node("Cast", ["picture"], ["wide"], to=TensorProto.FLOAT),
        repeat("wide", "large"),
        node("Cast", ["large"], ["enlarged"], to=KINDS[kind]),
    ]
    return save(path, nodes, shape, kinds=(kind, kind), scales=np.array(scales, np.float32))


def blurring(path: Path, scale: int) -> Path:
    """A network of receptive radius 1: the mean of 3x3 pixels, repeated."""
    weights: NDArray[np.float32] = np.zeros((3, 3, 3, 3), np.float32)
    weights[range(3), range(3)] = 1 / 9
    nodes = [
        node("Conv", ["picture", "weights"], ["blurred"], pads=[1, 1, 1, 1]),
        repeat("blurred"),
    ]
    return save(path, nodes, scales=np.array([1, 1, scale, scale], np.float32), weights=weights)


def dimming(path: Path, gains: Sequence[float], scale: int = 1) -> Path:
    """A network that multiplies each channel, and repeats pixels."""
    factors = np.array(gains, np.float32).reshape(1, -1, 1, 1)
    nodes = [node("Mul", ["picture", "factors"], ["dim"]), repeat("dim")]
    return save(path, nodes, scales=np.array([1, 1, scale, scale], np.float32), factors=factors)


def bicubic(path: Path) -> Path:
    """Bicubic enlargement by ONNX's own operator, of pixels from 0 to 255."""
    kernel = {"mode": "cubic", "cubic_coeff_a": -0.5}
    nodes = [
        node("Resize", ["picture", "", "scales"], ["large"], **kernel),
        node("Clip", ["large", "low", "high"], ["enlarged"]),
    ]
    return save(path, nodes, low=np.float32(0), high=np.float32(255))


def clipping(path: Path, low: float, high: float, gain: float = 1) -> Path:
    """A network that clips to its own range, so that any other range shows, and multiplies."""
    nodes = [
        node("Clip", ["picture", "low", "high"], ["clipped"]),
        node("Mul", ["clipped", "gain"], ["bright"]),
        repeat("bright"),
    ]
    limits = {"low": np.float32(low), "high": np.float32(high), "gain": np.float32(gain)}
    return save(path, nodes, **limits)


def with_weights_beside(path: Path) -> Path:
    """A network that keeps every pixel by weights in the file ``weights``."""
    same: NDArray[np.float32] = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    save(path, [node("Conv", ["picture", "same"], ["kept"]), repeat("kept")], same=same)
    model = onnx.load(path)
    set_external_data(model.graph.initializer[1], "weights")
    onnx.save(model, path)
    return path


def anonymous(source: Path, target: Path) -> Path:
    """Copy an exported file without its metadata and with other names of input and output."""
    model = onnx.load(source)
    del model.metadata_props[:]
    names = {"lr": "pixel_values", "sr": "reconstruction"}
    for item in model.graph.node:
        item.input[:] = [names.get(name, name) for name in item.input]
        item.output[:] = [names.get(name, name) for name in item.output]
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.name = names[tensor.name]
    onnx.save(model, target)
    return target


def ranged(source: Path, target: Path, input_peak: int, output_peak: int) -> Path:
    """An `anonymous` copy for which white is another value than 1."""
    model = onnx.load(anonymous(source, target))
    names = {"pixel_values": "scaled", "reconstruction": "raw"}
    for item in model.graph.node:
        item.input[:] = [names.get(name, name) for name in item.input]
        item.output[:] = [names.get(name, name) for name in item.output]
    model.graph.node.insert(0, node("Mul", ["pixel_values", "gain_in"], ["scaled"]))
    model.graph.node.append(node("Mul", ["raw", "gain_out"], ["reconstruction"]))
    gains = {"gain_in": np.float32(1 / input_peak), "gain_out": np.float32(output_peak)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), n) for n, v in gains.items()
    )
    onnx.save(model, target)
    return target
