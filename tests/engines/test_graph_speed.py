"""The shipped graph takes its time: how runtimes lay it out, its work, and a stack of convolutions.

What ONNX Runtime makes of the graph is counted and the same on every x86-64 processor. The time is
compared with that of plain convolutions of as much work, in turns on one thread, so that only
ratios count; where they scatter too widely to decide, the test is skipped with that reason.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from agsr.bench.runner.flops import count_flops
from agsr.bench.runner.worker import elapsed
from agsr.pretrained import find_onnx

SHAPE = (1, 3, 72, 96)
ROUNDS = 15

REORDERS = ("ReorderInput", "ReorderOutput")
"""What ONNX Runtime adds where values leave the blocks of channels that convolutions work in."""
FUSED = ("Relu", "LeakyRelu", "Sigmoid", "Tanh")
"""Activations that it computes within the convolution before them."""

blocks_of_channels = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"),
    reason="ONNX Runtime works in blocks of channels on x86-64 only",
)


def _optimized(path: Path, folder: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime's CPU provider runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the result is for this processor
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def _out_of_layout(path: Path, folder: Path) -> Path:
    """The graph with something behind each convolution that runtimes can't keep in blocks."""
    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type == "Conv":
            name = node.output[0]
            node.output[0] = f"{name}_plain"
            nodes.append(helper.make_node("Neg", [f"{name}_plain"], [f"{name}_neg"]))
            nodes.append(helper.make_node("Neg", [f"{name}_neg"], [name]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, folder / "slow.onnx")
    return folder / "slow.onnx"


@blocks_of_channels
def test_values_stay_in_blocks_of_channels_until_the_pixels_are_shuffled(tmp_path: Path) -> None:
    found = _optimized(find_onnx("psnr", 1), tmp_path)
    assert sum(found[name] for name in REORDERS) == 1
    assert sum(found[name] for name in FUSED) == 0


@blocks_of_channels
def test_a_broken_layout_would_be_noticed(tmp_path: Path) -> None:
    found = _optimized(_out_of_layout(find_onnx("psnr", 1), tmp_path), tmp_path)
    assert sum(found[name] for name in REORDERS) > found["Conv"]
    assert sum(found[name] for name in FUSED) > 10


@pytest.mark.parametrize(("steps", "gmac"), [(1, 21.6), (4, 55.5)])
def test_the_shipped_graph_does_no_more_work_than_is_documented(steps: int, gmac: float) -> None:
    work = count_flops(find_onnx("psnr", steps), (1, 3, 180, 320))
    assert work / 2e9 == pytest.approx(gmac, abs=0.05)  # two operations per product


@pytest.mark.slow
def test_the_shipped_graph_is_nearly_as_fast_as_convolutions_alone() -> None:
    one, two = (find_onnx("psnr", steps) for steps in (1, 2))
    stack = _stack(count_flops(one, SHAPE))
    runs = [_runner(model) for model in (stack, one.read_bytes(), two.read_bytes())]
    for run in runs:
        run()
    times = np.array([[elapsed(run) for run in runs] for _ in range(ROUNDS)])
    graph, longer = (times[:, [1, 2]] / times[:, [0]]).T
    verdict = _verdict(graph.tolist(), longer.tolist())
    if verdict == "unclear":
        pytest.skip(f"ratios scatter too widely to decide: {np.sort(graph).round(2).tolist()}")
    assert verdict == "fast", (np.sort(graph), np.sort(longer))


Verdict = Literal["fast", "slow", "unclear"]


def _verdict(graph: Sequence[float], longer: Sequence[float]) -> Verdict:
    """Decide whether a graph costs less than half a step above convolutions of as much work.

    Args:
        graph: Ratios of its time to theirs, one per round.
        longer: The same of a graph with one step more.

    Returns:
        ``"unclear"`` if the middle half of the ratios reaches over the bar.
    """
    bar = (1 + float(np.median(longer))) / 2
    low, high = np.percentile(graph, [25, 75])
    if low < bar < high:
        return "unclear"
    return "fast" if high <= bar else "slow"


@pytest.mark.parametrize(
    ("graph", "verdict"),
    [
        ((1.2, 1.25, 1.3, 1.3), "fast"),
        ((1.6, 1.7, 1.7, 1.8), "slow"),  # nothing is lost by noise that is above the bar
        ((1.2, 1.2, 1.2, 1.3, 1.3, 9.0), "fast"),  # a single round that was disturbed
        ((1.0, 1.3, 1.7, 2.0), "unclear"),
    ],
)
def test_a_slow_graph_would_be_noticed_and_noise_is_no_verdict(
    graph: tuple[float, ...], verdict: Verdict
) -> None:
    assert _verdict(graph, (1.9, 2.0, 2.0, 2.1)) == verdict


def _runner(model: bytes) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    lr = np.random.default_rng(0).random(SHAPE, np.float32)
    return lambda: session.run(None, {"lr": lr})


def _stack(flops: float) -> bytes:
    """3x3 convolutions of 64 channels with ReLU, as many as make up this work."""
    width, pixels = 64, SHAPE[2] * SHAPE[3]
    count = round(flops / (2 * 9 * width * width * pixels))
    nodes, weights, last, channels = [], [], "lr", SHAPE[1]
    for i in range(count):
        values = np.full((width, channels, 3, 3), 0.01, np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last, channels = f"r{i}", width
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)] for name in ("lr", last)
    ]
    graph = helper.make_graph(nodes, "stack", *ports, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
