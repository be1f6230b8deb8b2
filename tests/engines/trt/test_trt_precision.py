"""Precision of built engines, as TensorRT's inspector reports it.

The answers are shortened from NVIDIA's documentation of the inspector, by version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agsr.engines.tensorrt import builder as trt_builder
from agsr.engines.tensorrt.api import TensorRt, load_tensorrt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.options import BuildOptions
from agsr.engines.tensorrt.precision_check import built_products
from agsr.errors import BuildError

REFORMAT = {
    "Name": "Reformatting CopyNode for Input Tensor 0 to node_conv2d",
    "LayerType": "Reformat",
    "Inputs": [{"Name": "lr", "Format/Datatype": "Row major linear FP32"}],
    "ParameterType": "Reformat",
}
SHAPES = {"Name": "shape", "LayerType": "Shape", "Inputs": [{"Name": "x", "DataType": "Float"}]}


def _of_8(weights: str, text: str) -> dict[str, Any]:
    """TensorRT 8 to 10, static shapes."""
    return {
        "Name": "node_conv2d + node_relu",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "a", "Dimensions": [1, 64, 8, 8], "Format/Datatype": text}],
        "ParameterType": "Convolution",
        "Weights": {"Type": weights, "Count": 36864},
    }


def _of_10(text: str) -> dict[str, Any]:
    """TensorRT 10, dynamic shapes, weights not reported."""
    return {
        "Name": "node_conv2d",
        "LayerType": "conv",
        "Inputs": [{"Name": "a", "Dimensions": [-1, 64, -1, -1], "Format/Datatype": text}],
    }


def _of_11(dtype: str) -> dict[str, Any]:
    """TensorRT 11, which reports type and format separately."""
    return {
        "Name": "node_conv2d",
        "LayerType": "Convolution",
        "Inputs": [{"Name": "a", "DataType": dtype, "Format": "Channel major, channel % 8 == 0"}],
    }


def _telling(answer: str, base: Any = None) -> TensorRt:
    """A TensorRT whose engines tell ``answer``."""
    inspector = SimpleNamespace(get_engine_information=lambda _: answer)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: engine if answer else None)
    module = ModuleType("tensorrt")
    vars(module).update(vars(base or load_tensorrt().module), Runtime=lambda _: runtime)
    return TensorRt(module, "tensorrt-rtx")


def _layers(*layers: Any) -> str:
    return json.dumps({"Layers": [REFORMAT, SHAPES, *layers], "Bindings": ["lr", "sr"]})


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (_of_8("Half", "N/A due to dynamic shapes"), "HALF"),
        (_of_8("Int8", "Thirty-two wide channel vectorized row major Int8 format."), "INT8"),
        (_of_10("Channel major FP16 format where channel % 8 == 0"), "HALF"),
        (_of_10("Row major linear FP32"), "FLOAT"),
        (_of_10("Half"), "HALF"),
        (_of_11("BFloat16"), "BF16"),
        (_of_11("Float"), "FLOAT"),
    ],
)
def test_every_spelling_of_a_type_is_recognized(layer: dict[str, Any], expected: str) -> None:
    assert built_products(_telling(_layers(layer, layer)), b"", "m") == {expected: 2}


@pytest.mark.parametrize(
    "answer",
    [
        _layers(_of_10("N/A due to dynamic shapes")),
        _layers("node_conv2d", {"LayerType": "kgen"}),
        "{}",
        "not JSON",
        "[]",
    ],
)
def test_nothing_is_claimed_without_a_report(answer: str) -> None:
    assert built_products(_telling(answer), b"", "m") == {}


def test_an_engine_that_cannot_be_loaded_is_an_error() -> None:
    with pytest.raises(BuildError, match=r"m: its engine was built, but can't be loaded"):
        built_products(_telling(""), b"", "m")


@pytest.fixture
def built_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds for SM89 what is built for "this machine's GPU"."""
    configure = trt_builder.configure
    ada = BuildOptions(targets=("sm89",))

    def for_ada(trt: Any, builder: Any, _: BuildOptions, precision: str) -> Any:
        return configure(trt, builder, ada, precision)

    monkeypatch.setattr(trt_builder, "configure", for_ada)


@pytest.mark.usefixtures("built_here")
def test_an_fp16_engine_with_fp32_convolutions_is_refused(
    onnx_file: Callable[..., Path],
) -> None:
    path = onnx_file(1, "fp16")
    half, full = _of_11("Half"), _of_11("Float")
    _, report = build_engine(_telling(_layers(half)), path.read_bytes(), "m", BuildOptions())
    assert report.built == {"HALF": 1}
    assert report.to_dict()["built"] == {"HALF": 1}
    with pytest.raises(BuildError, match=r"m declares fp16, but the engine .* 2 in FLOAT; use"):
        build_engine(_telling(_layers(half, full, full)), path.read_bytes(), "m", BuildOptions())


def test_engines_for_other_gpus_are_not_loaded(onnx_file: Callable[..., Path]) -> None:
    path = onnx_file(1)
    options = BuildOptions(targets=("sm89",))
    _, report = build_engine(_telling(""), path.read_bytes(), "m", options)
    assert report.built == {}
