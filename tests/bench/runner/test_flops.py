"""FLOPs of small graphs, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agsr.bench.runner.entries import Entry
from agsr.bench.runner.flops import FlopCounter, count_flops
from agsr.bench.runner.plan import Workload
from agsr.errors import ModelError
from agsr.pretrained import find_onnx

Node = onnx.NodeProto
SHAPE = (2, 4, 6, 8)
ANY = ["batch", 4, "height", "width"]


def _weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def _ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _save(
    folder: Path,
    nodes: list[Node],
    weights: list[onnx.TensorProto],
    shape: list[int | str] = ANY,
    **options: object,
) -> Path:
    info = helper.make_tensor_value_info
    ports = [info("lr", TensorProto.FLOAT, shape)], [info("sr", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "test", *ports, weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    path = folder / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, **options), path)
    return path


def test_convolution_with_groups_stride_and_padding(tmp_path: Path) -> None:
    node = helper.make_node(
        "Conv", ["lr", "w", "b"], ["sr"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]
    )
    path = _save(tmp_path, [node], [_weights("w", 10, 2, 3, 3), _weights("b", 10)])
    assert count_flops(path, SHAPE) == 2 * (2 * 10 * 3 * 4) * (2 * 3 * 3)


def test_transposed_convolution(tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["lr", "w"], ["sr"], strides=[4, 4], group=2)
    path = _save(tmp_path, [node], [_weights("w", 4, 5, 4, 4)])
    # Every input value is multiplied with its 5 kernels of 4x4.
    assert count_flops(path, SHAPE) == 2 * (2 * 4 * 6 * 8) * (5 * 4 * 4)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_of_either_orientation(tmp_path: Path, transposed: int) -> None:
    nodes = [
        helper.make_node("Flatten", ["lr"], ["flat"], axis=2 if transposed else 3),
        helper.make_node("Gemm", ["flat", "w"], ["sr"], transA=transposed),
    ]
    # (2*4, 6*8) taken as (48, 8) · (8, 5), or (2*4*6, 8) · (8, 5)
    path = _save(tmp_path, nodes, [_weights("w", 8, 5)])
    assert count_flops(path, SHAPE) == 2 * 48 * 8 * 5


def test_product_of_batches_and_broadcast_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["lr", "w"], ["wide"]),  # (2, 4, 6, 8) · (8, 5)
        helper.make_node("Transpose", ["lr"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["turned", "wide"], ["sr"]),  # (2, 4, 8, 6) · (2, 4, 6, 5)
    ]
    path = _save(tmp_path, nodes, [_weights("w", 8, 5)])
    assert count_flops(path, SHAPE) == 2 * (2 * 4 * 6 * 5) * 8 + 2 * (2 * 4 * 8 * 5) * 6


def test_graphs_as_others_export_them(tmp_path: Path) -> None:
    """Weights in Constant nodes; a Resize whose size is computed from the input's shape."""
    nodes = [
        helper.make_node("Constant", [], ["w"], value=_weights("", 4, 4, 3, 3)),
        helper.make_node("Shape", ["lr"], ["shape"]),
        helper.make_node("Gather", ["shape", "two"], ["height"]),
        helper.make_node("Gather", ["shape", "three"], ["width"]),
        helper.make_node("Mul", ["height", "four"], ["tall"]),
        helper.make_node("Mul", ["width", "four"], ["wide"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["first"]),
        helper.make_node("Concat", ["first", "tall", "wide"], ["sizes"], axis=0),
        helper.make_node("Cast", ["sizes"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Resize", ["lr", "", "", "whole"], ["large"], mode="linear"),
        helper.make_node("Conv", ["large", "w"], ["sr"], pads=[1, 1, 1, 1]),
    ]
    numbers = {"zero": 0, "two": 2, "three": 3, "four": 4}
    path = _save(tmp_path, nodes, [_ints(name, value) for name, value in numbers.items()])
    assert count_flops(path, SHAPE) == 2 * (2 * 4 * 24 * 32) * (4 * 3 * 3)


def test_functions_inside_a_model_are_counted(tmp_path: Path) -> None:
    body = [helper.make_node("Conv", ["x", "k"], ["y"], pads=[1, 1, 1, 1])]
    opsets = [helper.make_opsetid("", 20)]
    function = helper.make_function("local", "Block", ["x", "k"], ["y"], body, opsets)
    node = helper.make_node("Block", ["lr", "w"], ["sr"], domain="local")
    path = _save(tmp_path, [node], [_weights("w", 4, 4, 3, 3)], functions=[function])
    assert count_flops(path, SHAPE) == 2 * (2 * 4 * 6 * 8) * (4 * 3 * 3)


def test_weights_in_another_file_need_not_be_there(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["lr", "w"], ["sr"])
    path = _save(tmp_path, [node], [_weights("w", 64, 4, 3, 3)])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert count_flops(path, SHAPE) == 2 * (2 * 64 * 4 * 6) * (4 * 3 * 3)


def test_shapes_that_depend_on_the_data_are_an_error(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["lr"], ["where"]),
        helper.make_node("Cast", ["where"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "floats"], ["sr"]),
    ]
    path = _save(tmp_path, nodes, [_weights("w", 3, 4)])
    with pytest.raises(ModelError, match=r"graph\.onnx: the shape of 'sr' can't be inferred"):
        count_flops(path, SHAPE)


def test_uncounted_operators_are_an_error_and_no_smaller_figure(tmp_path: Path) -> None:
    node = helper.make_node("Einsum", ["lr", "w"], ["sr"], equation="bchw,wd->bchd")
    path = _save(tmp_path, [node], [_weights("w", 8, 5)])
    with pytest.raises(ModelError, match=r"operations of Einsum can't be counted"):
        count_flops(path, SHAPE)


def test_sizes_that_a_graph_rejects_are_an_error(tmp_path: Path) -> None:
    path = _save(tmp_path, [helper.make_node("Relu", ["lr"], ["sr"])], [], shape=[1, 4, 6, "w"])
    assert count_flops(path, (1, 4, 6, 9)) == 0
    with pytest.raises(
        ModelError, match=r"\[1, 4, 6, 'w'\].*expected one that accepts \[1, 4, 7, 9\]"
    ):
        count_flops(path, (1, 4, 7, 9))
    with pytest.raises(ModelError, match="expected one that accepts"):
        count_flops(path, (4, 6, 9))


def test_files_that_are_no_graph_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a graph at all")
    for name in ("text.onnx", "gone.onnx"):
        with pytest.raises(ModelError, match=f"{name}: not an ONNX file"):
            count_flops(tmp_path / name, SHAPE)


@pytest.mark.parametrize(("steps", "giga_macs"), [(1, 21.6), (2, 33.0), (4, 55.5)])
def test_shipped_graphs_are_as_large_as_the_readme_says(steps: int, giga_macs: float) -> None:
    flops = count_flops(find_onnx("psnr", steps), (1, 3, 180, 320))
    assert flops / 2e9 == pytest.approx(giga_macs, abs=0.05)


def test_uncountable_graphs_are_noted_once_and_are_no_failure(tmp_path: Path) -> None:
    counter, workload = FlopCounter(), Workload.of_size((6, 8))
    (tmp_path / "bad.onnx").write_text("")
    missing = Entry(backend="torch", weights="psnr", steps=17)
    own = Entry(backend="torch", weights=str(tmp_path / "bad.onnx"))
    for entry in (missing, missing, own, Entry(backend="bicubic")):
        assert counter.count(entry, workload) is None
    assert [note.partition(":")[0] for note in counter.notes] == ["FLOPs not counted"] * 2
    assert "steps is 17; expected 1 to 16" in counter.notes[0]


def test_a_sets_flops_are_those_of_all_its_images(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["lr", "w"], ["sr"])
    path = _save(tmp_path, [node], [_weights("w", 1, 3, 1, 1)], shape=["b", 3, "h", "w"])
    small, large = (np.zeros((1, 3, 4, side), np.float32) for side in (5, 7))
    workload = Workload(name="two", batches=(small, large))
    entry = Entry(backend="ort", weights=str(path))
    assert FlopCounter().count(entry, workload) == 2 * 3 * (4 * 5 + 4 * 7)
