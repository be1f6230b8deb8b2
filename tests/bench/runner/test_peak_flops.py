"""The matrix product that a row's speed is compared with."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agsr.backend import BackendInfo
from agsr.bench.runner import peak_flops
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.peak_flops import GRAPH, matrix_product
from agsr.bench.runner.worker import elapsed
from agsr.errors import BackendError

INFO = BackendInfo(
    name="torch",
    device="cpu",
    precision="fp32",
    steps=1,
    receptive_radius=1,
    model="",
    weights_hash="",
)
TORCH = Entry(backend="torch", weights="psnr")


def _ort(device: str = "CPUExecutionProvider", precision: str = "fp32") -> BackendInfo:
    return replace(INFO, name="ort", device=device, precision=precision)


def test_the_graph_is_a_product_and_nothing_else() -> None:
    def port(name: str, *sizes: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "matmul",
        [port("a", "m", "k"), port("b", "k", "n")],
        [port("c", "m", "n")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version, model.producer_name = 10, "agsr"
    assert model.SerializeToString() == GRAPH.read_bytes()


@pytest.mark.parametrize(
    ("entry", "info", "library"),
    [
        (TORCH, INFO, "torch"),
        (Entry(backend="ort", weights="psnr", threads=1), _ort(), "onnxruntime cpu"),
        pytest.param(
            Entry(backend="openvino", weights="psnr"),
            replace(INFO, name="openvino", device="CPU"),
            "openvino",
            marks=pytest.mark.skipif(not find_spec("openvino"), reason="no wheel here"),
        ),
    ],
)
def test_products_have_a_plausible_rate(
    entry: Entry, info: BackendInfo, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak_flops, "SIDE", 512)
    found, flops, run = matrix_product(entry, info)
    run()
    assert (found, flops) == (library, 2 * 512**3)
    square = np.ones((512, 512), np.float32)
    mine, numpys = (
        min(elapsed(product) for _ in range(3)) for product in (run, lambda: square @ square)
    )
    assert 1e-2 < mine / numpys < 1e2  # it does what it is said to, on whatever machine


def test_a_precision_that_is_emulated_gets_smaller_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides: list[int] = []

    def multiplier(side: int) -> object:
        sides.append(side)
        return lambda: None

    monkeypatch.setattr(peak_flops, "_torch", lambda _: multiplier)
    monkeypatch.setattr(peak_flops, "elapsed", lambda _: 0.1)  # at side 256: 51 s at side 2048
    assert matrix_product(TORCH, INFO)[1] == 2 * 512**3
    monkeypatch.setattr(peak_flops, "elapsed", lambda _: 1e-3)
    assert matrix_product(TORCH, INFO)[1] == 2 * 2048**3
    assert sides == [256, 512, 256, 2048]


@pytest.mark.parametrize(
    ("entry", "info"),
    [
        (TORCH, replace(INFO, precision="int8")),
        (Entry(backend="openvino"), replace(INFO, name="openvino", precision="int8")),
        (Entry(backend="ort", weights="own.onnx"), _ort(precision="fp16")),
        (Entry(backend="ort:cuda", weights="psnr"), _ort("CUDAExecutionProvider")),
        (Entry(backend="bicubic"), replace(INFO, name="bicubic", precision="uint8")),
        (Entry(backend="trt", weights="psnr"), replace(INFO, name="trt", precision="fp16")),
    ],
)
def test_libraries_without_a_bare_product_are_reported(entry: Entry, info: BackendInfo) -> None:
    with pytest.raises(BackendError, match="no matrix product"):
        matrix_product(entry, info)
