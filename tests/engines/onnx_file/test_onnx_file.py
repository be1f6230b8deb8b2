"""What is refused before any of a foreign file is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_graphs import FREE, node, repeat, repeated, save, with_weights_beside
from onnx import helper

from agsr.engines.foreign import ForeignBackend
from agsr.engines.foreign.hints import Hints
from agsr.engines.onnx_file.inspect import read_content
from agsr.errors import ModelError
from agsr.export.verify import sample_batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x09" * 50])
def test_garbage_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match="no such file"):
        ForeignBackend(path)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX file"):
        ForeignBackend(path)


def test_a_broken_graph_is_refused(path: Path) -> None:
    save(path, [node("Relu", ["nowhere"], ["enlarged"])])
    with pytest.raises(ModelError, match="ONNX Runtime can't load it on 'cpu'"):
        ForeignBackend(path)


def test_custom_operators_are_named_wherever_they_are(path: Path) -> None:
    sharpen = node("Sharpen", ["picture"], ["enlarged"], domain="acme.magic")
    save(path, [sharpen], domain="acme.magic")
    with pytest.raises(ModelError, match=r"custom operators acme\.magic::Sharpen, which"):
        ForeignBackend(path)
    result = helper.make_tensor_value_info("enlarged", onnx.TensorProto.FLOAT, [None] * 4)
    branch = helper.make_graph([sharpen], "branch", [], [result])
    choice = node("If", ["yes"], ["enlarged"], then_branch=branch, else_branch=branch)
    save(path, [choice], domain="acme.magic", yes=np.array(True))
    with pytest.raises(ModelError, match=r"custom operators acme\.magic::Sharpen, which"):
        ForeignBackend(path)


def test_functions_of_the_model_itself_are_no_custom_operators(path: Path) -> None:
    keep = node("Keep", ["picture"], ["same"], domain="acme.magic")
    save(path, [keep, repeat("same")], FREE, domain="acme.magic")
    model, opsets = onnx.load(path), [helper.make_opsetid("", 18)]
    body = [node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("acme.magic", "Keep", ["x"], ["y"], body, opsets))
    onnx.save(model, path)
    lr = sample_batch(1, 9, 8)
    np.testing.assert_array_equal(ForeignBackend(path).upscale(lr), repeated(lr))


def test_weights_beside_the_file_belong_to_it(path: Path) -> None:
    lr = sample_batch(1, 9, 8)
    backend, weights = ForeignBackend(with_weights_beside(path)), path.with_name("weights")
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    weights.write_bytes((np.eye(3, dtype=np.float32) / 2).tobytes())
    other = ForeignBackend(path, Hints(input_peak=1, output_peak=1))
    assert other.info.weights_hash != backend.info.weights_hash
    np.testing.assert_array_equal(other.upscale(lr), repeated(lr) / 2)
    weights.unlink()
    with pytest.raises(ModelError, match="its weights are missing: put weights beside it"):
        ForeignBackend(path)


@pytest.mark.parametrize("location", ["../weights", "{folder}/weights", "link"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "inside").mkdir()
    path = with_weights_beside(tmp_path / "inside" / "foreign.onnx")
    path.with_name("weights").rename(tmp_path / "weights")
    path.with_name("link").symlink_to(tmp_path / "weights")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[1].external_data:
        if entry.key == "location":
            entry.value = location.format(folder=tmp_path)
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"references weights in .*weights, outside its folder"):
        ForeignBackend(path)


@pytest.mark.parametrize(
    ("kind", "precision"), [("float32", "fp32"), ("float16", "fp16"), ("int8", "int8")]
)
def test_precision_is_that_of_most_weights(path: Path, kind: str, precision: str) -> None:
    save(path, [repeat("picture")], many=np.zeros(100, kind), counts=np.zeros(1000, np.int64))
    assert read_content(path).precision == precision
