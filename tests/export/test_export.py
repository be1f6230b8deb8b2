from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from agsr.contract import ModelMetadata, Precision
from agsr.errors import ExportError, ModelError
from agsr.export import export_onnx
from agsr.export.verify import SHAPES, sample_batch
from agsr.model.checkpoint import Checkpoint, load_checkpoint
from agsr.pretrained import find_checkpoint


def _properties(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def _run(path: Path, lr: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["sr"], {"lr": lr})[0]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_export_equals_torch_at_shapes_it_was_not_traced_at(
    checkpoint: Checkpoint, onnx_file: Callable[[int], Path], steps: int
) -> None:
    for shape in ((1, 1, 1), (1, 1, 37), (3, 37, 1), (1, 29, 53), (2, 64, 17)):
        lr = sample_batch(*shape)
        with torch.inference_mode():
            expected = checkpoint.build()(torch.from_numpy(lr), steps).numpy()
        np.testing.assert_allclose(_run(onnx_file(steps), lr), expected, atol=1e-5)


def test_the_file_describes_itself_and_nothing_else(
    checkpoint: Checkpoint, onnx_file: Callable[[int], Path]
) -> None:
    path = onnx_file(2)
    model = onnx.load(path, load_external_data=False)
    metadata = ModelMetadata.from_properties(_properties(path), "tiny")
    assert metadata.steps == 2
    assert metadata.precision == "fp32"
    assert metadata.weights_hash == checkpoint.weights_hash
    assert json.loads(metadata.config) == vars(checkpoint.config)
    assert metadata.receptive_radius == checkpoint.config.receptive_radius(2)
    assert all(key.startswith("agsr.") for key in _properties(path))
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b".py" not in path.read_bytes()
    assert b"/" + b"site-packages" not in path.read_bytes()


def test_dimensions_are_dynamic_and_named(onnx_file: Callable[[int], Path]) -> None:
    shape = onnx.load(onnx_file(1)).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", 3, "height", "width"]


def test_the_loop_is_unrolled_with_shared_weights(onnx_file: Callable[[int], Path]) -> None:
    one, two, four = (onnx.load(onnx_file(steps)) for steps in (1, 2, 4))
    convolutions = [sum(n.op_type == "Conv" for n in m.graph.node) for m in (one, four)]
    assert convolutions[1] > 2 * convolutions[0]
    assert not {"Resize", "Loop", "Scan", "If"} & {n.op_type for n in four.graph.node}
    # The first step does without what belongs to the hidden state.
    weights = [[t.dims for t in m.graph.initializer if len(t.dims) == 4] for m in (two, four)]
    assert weights[1] == weights[0]


def test_fp16_is_inside_only_and_close(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    report = export_onnx(checkpoint, path, steps=3, precision="fp16")
    model = onnx.load(path)
    outside = [p.type.tensor_type.elem_type for p in (*model.graph.input, *model.graph.output)]
    assert outside == [onnx.TensorProto.FLOAT] * 2
    floats = {t.data_type for t in model.graph.initializer} - {onnx.TensorProto.INT64}
    assert floats == {onnx.TensorProto.FLOAT16}
    assert report.operators["Cast"] == 2
    assert 0 < max(row.largest for row in report.parity) < 4e-3


def test_the_report_covers_every_shape(checkpoint: Checkpoint, tmp_path: Path) -> None:
    report = export_onnx(checkpoint, tmp_path / "m.onnx", steps=1, opset=21)
    assert tuple(row.shape for row in report.parity) == SHAPES
    assert report.opset == 21
    assert report.size == (tmp_path / "m.onnx").stat().st_size
    assert json.loads(report.to_json())["metadata"]["steps"] == 1


def test_an_export_that_fails_verification_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"differs from torch by .* nothing was written"):
        export_onnx(checkpoint, tmp_path / "m.onnx", steps=2, precision="fp16", tolerance=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_nan_never_passes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
    weights["upsample.bias"] += 1e6  # beyond fp16's range
    broken = Checkpoint(config=checkpoint.config, weights=weights)
    with pytest.raises(ExportError, match="differs from torch by inf"):
        export_onnx(broken, tmp_path / "m.onnx", steps=1, precision="fp16")


def test_steps_out_of_range_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="steps is 17"):
        export_onnx(checkpoint, tmp_path / "m.onnx", steps=17)


def test_the_opset_is_the_one_asked_for_or_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for opset in (18, 24):
        export_onnx(checkpoint, tmp_path / "m.onnx", steps=1, opset=opset)
        found = {i.domain: i.version for i in onnx.load(tmp_path / "m.onnx").opset_import}
        assert found[""] == opset
    with pytest.raises(ExportError, match="opset is 99; expected 18 to 24"):
        export_onnx(checkpoint, tmp_path / "m.onnx", steps=1, opset=99)


def test_metadata_of_other_models_is_explained() -> None:
    with pytest.raises(ModelError, match=r"not exported by agsr: agsr\.steps, .* missing"):
        ModelMetadata.from_properties({}, "other.onnx")


def test_metadata_of_a_later_version_is_explained(onnx_file: Callable[[int], Path]) -> None:
    for key, value, message in (
        ("precision", "fp4", "precision fp4; this version runs"),
        ("scale", "17", "scale 17"),
        ("steps", "-3", "-3 steps.* out of range"),
        ("receptive_radius", "-1", "out of range"),
        ("steps", "many", "invalid metadata: "),
    ):
        properties = {**_properties(onnx_file(1)), f"agsr.{key}": value}
        with pytest.raises(ModelError, match=message):
            ModelMetadata.from_properties(properties, "later.onnx")


@pytest.mark.parametrize(
    ("steps", "precision", "largest"), [(1, "fp32", 1e-4), (4, "fp32", 1e-4), (4, "fp16", 4e-3)]
)
def test_shipped_weights_export_within_tolerance(
    tmp_path: Path, steps: int, precision: Precision, largest: float
) -> None:
    shipped = load_checkpoint(find_checkpoint("psnr"))
    report = export_onnx(shipped, tmp_path / "m.onnx", steps=steps, precision=precision)
    assert max(row.largest for row in report.parity) <= largest
