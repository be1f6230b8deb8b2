"""The assembled graph: the trained network's function, in one layout, for any shape and steps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from generators import CONFIGS, random_checkpoint, random_generator

from agsr.assembly.assemble import assemble
from agsr.assembly.fusion import fuse
from agsr.assembly.generator_graph import generator_model
from agsr.assembly.tensors import set_rounded, to_array
from agsr.assembly.weights import GeneratorWeights, generator_shapes
from agsr.contract import Precision
from agsr.errors import ExportError
from agsr.export.graph_passes import check_graph, separate_biases
from agsr.model.checkpoint import load_checkpoint
from agsr.pretrained import find_checkpoint, find_onnx, shipped_names

SIZES = ((1, 1, 1), (1, 1, 7), (1, 7, 1), (2, 2, 3), (1, 13, 18))


def _weights(name: str) -> GeneratorWeights:
    config = CONFIGS[name]
    arrays = {n: v.numpy() for n, v in random_checkpoint(config).weights.items()}
    return GeneratorWeights(config=config, arrays=arrays)


def _run(content: bytes, lr: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["sr"], {"lr": lr})[0]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_equals_the_trained_network_to_rounding(
    name: str, steps: int, precision: Precision
) -> None:
    weights = _weights(name)
    layers = fuse(weights.arrays, weights.config)
    # int8 before it is quantized: the skips of the blocks are apart.
    model = generator_model(layers, weights.config, steps, precision, 20)
    generator = random_generator(CONFIGS[name])
    for batch, height, width in SIZES:
        lr = torch.rand(batch, 3, height, width)
        with torch.inference_mode():
            expected = generator(lr, steps).numpy()
        found = _run(model.SerializeToString(), lr.numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
        assert expected.std() > 0.05


def test_sixteen_steps_are_one_step_repeated() -> None:
    content = assemble(_weights("tiny"), 16)
    model = onnx.load_from_string(content)
    per_step = Counter(node.name.partition(".")[0] for node in model.graph.node)
    (nodes,) = {per_step[f"step{number}"] for number in range(2, 17)}
    assert nodes > 10
    gates = [c.name for c in model.graph.initializer if "gru.reset.of_hidden.weight" in c.name]
    assert len(gates) == 1
    lr = torch.rand(1, 3, 13, 21)
    with torch.inference_mode():
        expected = random_generator(CONFIGS["tiny"])(lr, 16).numpy()
    np.testing.assert_allclose(_run(content, lr.numpy()), expected, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("opset", [22, 24])
def test_graphs_are_valid_onnx(precision: Precision, opset: int) -> None:
    content = assemble(_weights("odd widths"), 2, precision, opset=opset)
    operators = check_graph(onnx.load_from_string(content))
    assert operators.get("Cast", 0) == (0 if precision == "fp32" else 2)


def test_bf16_constants_are_rounded_to_nearest_even() -> None:
    values = torch.tensor([0.0, -0.5, 1 + 2**-8, 1 + 3 * 2**-8, 3.14159, 1e-30, 65504.0])
    tensor = onnx.TensorProto()
    set_rounded(tensor, "v", values.numpy(), "bf16")
    expected = values.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    assert tensor.raw_data == expected


def test_constants_of_other_types_are_rejected() -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    with pytest.raises(ValueError, match="indices: data type 7"):
        to_array(tensor)


def test_the_shapes_are_those_of_the_trained_network() -> None:
    for config in CONFIGS.values():
        state = random_generator(config).state_dict()
        assert generator_shapes(config) == {n: tuple(v.shape) for n, v in state.items()}


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_graphs_have_a_bias_for_each_convolution(name: str) -> None:
    """OpenVINO adds what several convolutions share by separate passes over memory."""
    graph = onnx.load(find_onnx(name, 4)).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    biases = [node.input[2] for node in convolutions if len(node.input) > 2]
    assert len(set(biases)) == len(biases)
    assert len({node.input[1] for node in convolutions}) < len(convolutions)  # weights are shared
    values = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    again = [name for name in biases if name.endswith(".bias.4")]
    assert len(again) > 4
    assert all((values[name] == values[name.removesuffix(".4")]).all() for name in again)


def test_other_readers_of_a_bias_keep_it() -> None:
    def node(kind: str, *inputs: str) -> onnx.NodeProto:
        return onnx.helper.make_node(kind, inputs, [f"{kind}{len(inputs)}{inputs[0]}"])

    bias = onnx.numpy_helper.from_array(np.ones(1, np.float32), "b")
    nodes = [node("Conv", "x", "w", "b"), node("Add", "y", "b"), node("Conv", "z", "w", "b")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], [bias]))
    separate_biases(model)
    assert [n.input[-1] for n in model.graph.node] == ["b", "b", "b.2"]
    assert [c.name for c in model.graph.initializer] == ["b", "b.2"]


def test_onnx_runtime_runs_the_shipped_graph_in_blocks(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        str(find_onnx("psnr", 2)), options, providers=["CPUExecutionProvider"]
    )
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    operators = Counter(node.op_type for node in nodes)
    assert operators["ReorderInput"] == 0
    assert operators["ReorderOutput"] <= 1
    fused_away = {"Sigmoid", "Tanh", "LeakyRelu", "Relu", "Slice", "Split", "Shape", "Reshape"}
    assert not fused_away & operators.keys()


@pytest.mark.parametrize("name", shipped_names())
def test_nine_steps_of_shipped_weights_equal_torch(name: str) -> None:
    lr = torch.rand(1, 3, 17, 23)
    with torch.inference_mode():
        expected = load_checkpoint(find_checkpoint(name)).build()(lr, 9).numpy()
    found = _run(find_onnx(name, 9).read_bytes(), lr.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_operator_that_onnx_lacks_in_a_precision_is_named() -> None:
    """ONNX has no Einsum of bfloat16, which a traced network may contain."""
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BFLOAT16, [1, 2])
        for name in ("lr", "sr")
    ]
    node = onnx.helper.make_node("Einsum", ["lr"], ["sr"], equation="ij->ij")
    graph = onnx.helper.make_graph([node], "agsr", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)])
    with pytest.raises(ExportError, match=r"Einsum.*another --precision"):
        check_graph(model)
