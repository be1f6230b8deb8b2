"""The rearranged generator: equal to the trained one, and kept by ONNX Runtime in one layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TINY, small_baseline

from agsr.export.fused import FusedGenerator
from agsr.export.graph_passes import separate_biases
from agsr.export.unrolled import UnrolledNetwork
from agsr.model.generator import Generator, GeneratorConfig
from agsr.pretrained import find_onnx, shipped_names

CONFIGS = {
    "tiny": TINY,
    "3x3 gates": GeneratorConfig(
        width=16, growth=4, gru_kernel=3, dense_blocks=1, mapping_pairs=1, mapping_width=4
    ),
    "odd widths": GeneratorConfig(
        width=5, growth=3, dense_layers=3, dense_blocks=2, mapping_width=7, mapping_pairs=2
    ),
    "several copies of the map": GeneratorConfig(
        width=48, growth=16, dense_layers=1, dense_blocks=1, gru_kernel=5, mapping_pairs=1
    ),
}

SIZES = ((1, 1, 1), (1, 1, 7), (1, 7, 1), (2, 2, 3), (1, 13, 18))


def _generator(config: GeneratorConfig) -> Generator:
    """Random weights, biases as large as the weights so that borders show."""
    torch.manual_seed(0)
    generator = Generator(config).eval().requires_grad_(False)
    for parameter in generator.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return generator


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("separate_skips", [False, True])
def test_it_equals_the_trained_network_to_rounding(
    name: str, steps: int, separate_skips: bool
) -> None:
    generator = _generator(CONFIGS[name]).double()
    fused = FusedGenerator(generator.float(), separate_skips=separate_skips).double()
    generator = generator.double()
    for batch, height, width in SIZES:
        lr = torch.rand(batch, 3, height, width, dtype=torch.float64)
        with torch.inference_mode():
            expected, found = generator(lr, steps), fused(lr, steps)
        # Both compute in float64; what differs is that products of weights were kept as float32.
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        assert expected.std() > 0.05


def test_the_trained_network_is_left_as_it_is() -> None:
    generator = _generator(TINY)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    FusedGenerator(generator)
    after = generator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_only_the_generator_is_rearranged_with_skips_apart_for_int8() -> None:
    for precision in ("fp16", "int8"):
        made = UnrolledNetwork(_generator(TINY), 2, precision)  # type: ignore[arg-type]
        assert isinstance(made.network, FusedGenerator)
        weights = dict(made.named_parameters())
        assert all(any(name.startswith(layer) for name in weights) for layer in made.exact)
        skip = made.network.step.blocks[0].fusion.weight[:, :, 0, 0].float().diagonal()
        assert (skip.mean() < 0.5) == (precision == "int8")
    for name in ("srcnn", "srgan"):
        network = small_baseline(name).build()
        assert UnrolledNetwork(network, 1, "fp32").network is network


def test_exports_have_a_bias_for_each_convolution(onnx_file: Callable[..., Path]) -> None:
    _check_biases(onnx_file(3), copies=2)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_graphs_have_a_bias_for_each_convolution(name: str) -> None:
    _check_biases(find_onnx(name, 4), copies=3)


def _check_biases(path: Path, copies: int) -> None:
    """OpenVINO adds what several convolutions share by passes over memory of their own."""
    graph = onnx.load(path).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    biases = [node.input[2] for node in convolutions if len(node.input) > 2]
    assert len(set(biases)) == len(biases)
    assert len({node.input[1] for node in convolutions}) < len(convolutions)  # weights are shared
    values = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    last = f".{copies + 1}"
    again = [name for name in biases if name.endswith(f".bias{last}")]
    assert len(again) > 4
    assert all((values[name] == values[name.removesuffix(last)]).all() for name in again)


def test_other_readers_of_a_bias_keep_it() -> None:
    def node(kind: str, *inputs: str) -> onnx.NodeProto:
        return onnx.helper.make_node(kind, inputs, [f"{kind}{len(inputs)}{inputs[0]}"])

    bias = onnx.numpy_helper.from_array(np.ones(1, np.float32), "b")
    nodes = [node("Conv", "x", "w", "b"), node("Add", "y", "b"), node("Conv", "z", "w", "b")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], [bias]))
    separate_biases(model)
    assert [n.input[-1] for n in model.graph.node] == ["b", "b", "b.2"]
    assert [c.name for c in model.graph.initializer] == ["b", "b.2"]


def test_onnx_runtime_runs_the_shipped_graph_in_blocks(
    optimized: Callable[[Path], Counter[str]], shipped: Path
) -> None:
    operators = optimized(shipped)
    assert operators["ReorderInput"] == 0
    assert operators["ReorderOutput"] <= 1
    fused_away = {"Sigmoid", "Tanh", "LeakyRelu", "Relu", "Slice", "Split", "Shape", "Reshape"}
    assert not fused_away & operators.keys()


@pytest.fixture
def shipped() -> Path:
    from agsr.pretrained import find_onnx

    return find_onnx("psnr", 2)


@pytest.fixture
def optimized(tmp_path: Path) -> Callable[[Path], Counter[str]]:
    """Counts the operators of a file behind ONNX Runtime's own optimization."""

    def count(path: Path) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        return Counter(node.op_type for node in nodes)

    return count
