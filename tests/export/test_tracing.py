"""Tracing the loop part by part: the chained graph computes what the parts do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import torch
from conftest import TINY
from onnx.reference import ReferenceEvaluator

from agsr.export.graph_passes import chain
from agsr.export.tracing import trace
from agsr.export.unrolled import UnrolledNetwork
from agsr.model.generator import Generator


def _part(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> part {text}')


def test_a_part_repeats_with_its_own_values_and_shared_constants() -> None:
    first = _part(
        "(float[n] lr) => (float[n] state, float[n] other) <float w = {2}>"
        " { state = Mul(lr, w) other = Add(lr, w) }"
    )
    step = _part(
        "(float[n] state) => (float[n] state_next) <float w = {3}, float b = {1}>"
        " { inner = Mul(state, w) state_next = Add(inner, b) }"
    )
    last = _part(
        "(float[n] state, float[n] other) => (float[n] sr) <float w = {2}>"
        " { inner = Mul(state, w) sr = Sub(inner, other) }"
    )
    model = chain(first, step, last, 3)
    onnx.checker.check_model(model, full_check=True)

    lr = np.array([1, -2], np.float32)
    state = lr * 2
    for _ in range(3):
        state = state * 3 + 1
    (sr,) = ReferenceEvaluator(model).run(None, {"lr": lr})
    np.testing.assert_array_equal(sr, state * 2 - (lr + 2))
    constants = sorted(float(onnx.numpy_helper.to_array(c)) for c in model.graph.initializer)
    assert constants == [1, 2, 3]  # w of first and last is one, the other w another


def test_constants_of_one_name_are_shared_only_if_shape_and_type_agree_too() -> None:
    first = _part("(float[n] lr) => (float[n] state) <float[1] w = {2}> { state = Mul(lr, w) }")
    last = _part(
        "(float[n] state) => (float[1, n] sr) <float[1, 1] w = {2}> { sr = Mul(state, w) }"
    )
    model = chain(first, last, last, 0)
    assert sorted(len(constant.dims) for constant in model.graph.initializer) == [1, 2]
    (sr,) = ReferenceEvaluator(model).run(None, {"lr": np.ones(3, np.float32)})
    assert sr.shape == (1, 3)
    assert (sr == 4).all()


def test_a_constant_named_like_a_value_of_the_first_part_is_renamed() -> None:
    first = _part("(float[n] lr) => (float[n] state) { val_1 = Neg(lr) state = Neg(val_1) }")
    last = _part("(float[n] state) => (float[n] sr) <float val_1 = {3}> { sr = Mul(state, val_1) }")
    model = chain(first, last, last, 0)
    onnx.checker.check_model(model, full_check=True)
    (sr,) = ReferenceEvaluator(model).run(None, {"lr": np.ones(2, np.float32)})
    assert sr.tolist() == [3, 3]


def test_nine_steps_are_one_step_repeated() -> None:
    torch.manual_seed(0)
    generator = Generator(TINY).eval()
    model = trace(UnrolledNetwork(generator, 9, "fp32").eval(), 20)
    per_step = Counter(node.name.partition(".")[0] for node in model.graph.node)
    (nodes,) = {per_step[f"step{number}"] for number in range(2, 10)}
    assert nodes > 10
    lr = torch.rand(1, 3, 13, 21)
    (sr,) = ReferenceEvaluator(model).run(None, {"lr": lr.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(sr, generator(lr, 9).numpy(), atol=1e-4)
    gates = [c.name for c in model.graph.initializer if "gru.reset.of_hidden.weight" in c.name]
    assert len(gates) == 1
