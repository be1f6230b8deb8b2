"""Other projects' graphs on TensorRT: adapted to the names of exports, built, and described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Repeat
from foreign_graphs import blurring, node, repeat, repeating, save, with_weights_beside
from onnx import TensorProto, helper

from agsr.backend import BackendInfo
from agsr.engines.foreign import ForeignBackend, Hints
from agsr.engines.foreign.contract_graph import contract_graph, contract_metadata
from agsr.engines.onnx_file.inspect import check_self_contained
from agsr.engines.open import open_backend
from agsr.engines.ranking import candidates
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.tensorrt.api import load_tensorrt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.options import BuildOptions
from agsr.errors import BackendError, ModelError
from agsr.export.verify import sample_batch

LAST = [0, 2, 3, 1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


def _adapted(path: Path, hints: Hints | None = None) -> bytes:
    spec = ForeignBackend(path, hints).io_spec
    assert spec.follows_contract
    metadata = contract_metadata(spec, "fp32", "hash")
    return contract_graph(path.read_bytes(), spec, metadata, str(path))


def _with_second_output(path: Path) -> None:
    model = onnx.load(path)
    model.graph.output.append(
        helper.make_tensor_value_info("blurred", TensorProto.FLOAT, [None] * 4)
    )
    onnx.save(model, path)


def test_the_adapted_graph_has_the_same_pixels(path: Path, tmp_path: Path) -> None:
    blurring(path, 2)
    _with_second_output(path)
    hints, lr = Hints(output="enlarged"), sample_batch(2, 9, 8)
    (tmp_path / "own.onnx").write_bytes(_adapted(path, hints))
    own = OrtBackend(tmp_path / "own.onnx")
    assert own.info.scale == 2
    np.testing.assert_array_equal(own.upscale(lr), ForeignBackend(path, hints).upscale(lr))


def test_tensorrt_builds_the_adapted_graph(path: Path) -> None:
    adapted = _adapted(blurring(path, 3))
    _, report = build_engine(load_tensorrt(), adapted, "x", BuildOptions(targets=("sm89",)))
    assert report.metadata.scale == 3
    assert report.products() == {"FLOAT": 1}


def test_inner_tensors_with_a_name_of_the_contract_are_rejected(path: Path) -> None:
    save(path, [node("Identity", ["picture"], ["sr"]), repeat("sr")])
    with pytest.raises(ModelError, match="an inner tensor is named 'sr'"):
        _adapted(path)


def test_the_opened_engine_is_described_as_a_foreign_network(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[bytes] = []

    def stand_in(file: Path, *, content: bytes, **_: Any) -> Any:
        built.append(content)
        info = BackendInfo(
            name="trt",
            device="GPU",
            precision="fp32",
            steps=1,
            receptive_radius=1,
            model=str(file),
            weights_hash="",
            scale=2,
        )
        backend = Repeat()
        backend.info = info
        return backend

    monkeypatch.setattr("agsr.engines.tensorrt.backend.TrtBackend", stand_in)
    opened = open_backend("trt", str(repeating(path, scale=2)))
    (content,) = built
    properties = {p.key: p.value for p in onnx.load_model_from_string(content).metadata_props}
    assert (properties["agsr.scale"], properties["agsr.precision"]) == ("2", "fp32")
    assert (opened.info.steps, opened.info.receptive_radius) == (None, None)
    assert opened.info.model == str(path)  # also while it is built: messages name it
    assert opened.info.io_format == ForeignBackend(path).io_spec.summary
    for options in ({"layout": "NHWC"}, {"kind": "uint8"}, {"size": (32, 32)}, {"channels": 1}):
        repeating(path, **options)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match="run it with --backend ort"):
            open_backend("trt", str(path))
    with pytest.raises(BackendError, match="'trt' runs fp32 graphs in fp32, not in fp16"):
        open_backend("trt", str(repeating(path)), precision="fp16")


def test_what_tensorrt_cannot_run_is_described_whole(path: Path) -> None:
    nodes = [repeat("picture", "large"), node("Transpose", ["large"], ["enlarged"], perm=LAST)]
    with pytest.raises(BackendError, match=r"takes NCHW float32 RGB.* → enlarged: NHWC float32"):
        open_backend("trt", str(save(path, nodes)))
    nodes = [
        node("Cast", ["picture"], ["wide"], to=TensorProto.DOUBLE),
        node("Mul", ["wide", "gains"], ["bright"]),
        node("Div", ["bright", "divisors"], ["same"]),
        node("Cast", ["same"], ["narrow"], to=TensorProto.FLOAT),
        repeat("narrow"),
    ]
    save(path, nodes, gains=np.full((1, 3, 1, 1), 2.0), divisors=np.full((1, 3, 1, 1), 2.0))
    with pytest.raises(BackendError, match=r"TensorRT computes in fp32, .*; this network is fp64"):
        open_backend("trt", str(path))


def test_weights_beside_the_file_are_rejected_with_a_remedy(path: Path, tmp_path: Path) -> None:
    with_weights_beside(path)
    with pytest.raises(
        ModelError, match=r"write such a file with onnx.save\(onnx.load\("
    ) as caught:
        open_backend("trt", str(path))
    assert "agsr export" not in str(caught.value)
    onnx.save(onnx.load(path), tmp_path / "whole.onnx")
    check_self_contained((tmp_path / "whole.onnx").read_bytes(), "whole.onnx")


def test_auto_builds_no_engines_of_foreign_files(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.engines.ranking.missing_requirement", lambda _: "")
    repeating(path)
    assert {found.place.runtime for found in candidates(str(path))} == {"ort", "openvino"}
