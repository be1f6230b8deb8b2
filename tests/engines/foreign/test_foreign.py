"""Networks of others run like ours: how they want their pixels is found, the pixels are right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import BF16_BY_OPENVINO, NEEDS_OPENVINO, small_baseline
from foreign_graphs import (
    FREE,
    anonymous,
    bicubic,
    clipping,
    node,
    ranged,
    repeat,
    repeated,
    repeating,
    save,
)
from numpy.typing import NDArray
from onnx import TensorProto, helper

from agsr.backend import Batch
from agsr.bench.data.sets import find_set
from agsr.bench.scoring import compare
from agsr.bicubic import upscale_planes
from agsr.engines.foreign import ForeignBackend
from agsr.engines.foreign.hints import Hints
from agsr.engines.places import Place
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ModelError
from agsr.export import export_onnx
from agsr.export.verify import sample_batch
from agsr.metrics.luma import full_range_luma
from agsr.pretrained import find_onnx

pytestmark = pytest.mark.processor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


@pytest.fixture
def lr() -> Batch:
    """Real pixels that are whole levels of 255."""
    return sample_batch(2, 19, 26)


@pytest.mark.parametrize("kind", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layout_and_type_are_found(path: Path, lr: Batch, layout: str, kind: str) -> None:
    backend = ForeignBackend(repeating(path, layout=layout, kind=kind))
    assert backend.io_spec.input_layout == backend.io_spec.output_layout == layout
    assert backend.io_spec.input_type == kind
    assert backend.io_spec.input_peak == (255 if kind == "uint8" else 1)
    atol = {"float32": 0, "float16": 5e-4, "uint8": 1e-7}[kind]
    np.testing.assert_allclose(backend.upscale(lr), repeated(lr), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("low", "high", "gain", "peaks"),
    [
        (0, 1, 1, (1, 1)),
        (2, 255, 1, (255, 255)),
        (0, 1, 255, (1, 255)),
        (1.5, 255, 1 / 255, (255, 1)),
    ],
)
def test_ranges_are_found(
    path: Path, low: float, high: float, gain: float, peaks: tuple[int, int]
) -> None:
    lr = np.random.default_rng(0).uniform(0.1, 0.9, (1, 3, 9, 8)).astype(np.float32)
    backend = ForeignBackend(clipping(path, low, high, gain))
    assert (backend.io_spec.input_peak, backend.io_spec.output_peak) == peaks
    np.testing.assert_allclose(backend.upscale(lr), repeated(lr), atol=1e-6)


@pytest.mark.parametrize("peaks", [(255, 255), (1, 255), (255, 1)])
def test_ranges_of_a_trained_network_are_found(
    path: Path, lr: Batch, peaks: tuple[int, int]
) -> None:
    backend = ForeignBackend(ranged(find_onnx("psnr", 1), path, *peaks))
    assert (backend.io_spec.input_peak, backend.io_spec.output_peak) == peaks
    expected = OrtBackend(find_onnx("psnr", 1)).upscale(lr)
    np.testing.assert_allclose(backend.upscale(lr), expected, atol=1e-5)


def test_an_unlike_output_is_rejected_unless_the_range_is_given(path: Path, lr: Batch) -> None:
    clipping(path, 0, 0.001)  # all but black
    with pytest.raises(ModelError, match="its output doesn't resemble its input, whether"):
        ForeignBackend(path)
    backend = ForeignBackend(path, Hints(input_peak=1, output_peak=1))
    assert backend.upscale(lr).max() <= 0.001


def test_bgr_networks_get_bgr(path: Path, lr: Batch) -> None:
    gains = np.array([0.75, 1, 1], np.float32).reshape(1, 3, 1, 1)  # of the first channel
    save(path, [node("Mul", ["picture", "gains"], ["same"]), repeat("same")], gains=gains)
    for order, first in (("rgb", 0), ("bgr", 2)):
        expected = repeated(lr)
        expected[:, first] *= 0.75
        sr = ForeignBackend(path, Hints(order=order)).upscale(lr)  # type: ignore[arg-type]
        np.testing.assert_array_equal(sr, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_luma_networks_keep_the_colours_by_bicubic(path: Path, lr: Batch, layout: str) -> None:
    backend = ForeignBackend(repeating(path, channels=1, layout=layout))
    assert backend.io_spec.channels == 1
    sr = backend.upscale(lr)
    np.testing.assert_allclose(full_range_luma(sr), repeated(full_range_luma(lr)), atol=1e-6)
    np.testing.assert_allclose(
        sr - full_range_luma(sr), upscale_planes(lr - full_range_luma(lr)), atol=1e-6
    )
    grey = np.repeat(full_range_luma(lr), 3, axis=1)
    np.testing.assert_allclose(backend.upscale(grey), repeated(grey), atol=1e-6)


def test_output_layout_and_type_may_differ_from_the_inputs(path: Path, lr: Batch) -> None:
    nodes = [
        repeat("picture", "large"),
        node("Mul", ["large", "white"], ["levels"]),
        node("Round", ["levels"], ["whole"]),
        node("Cast", ["whole"], ["bytes"], to=TensorProto.UINT8),
        node("Transpose", ["bytes"], ["enlarged"], perm=[0, 2, 3, 1]),
    ]
    save(path, nodes, kinds=("float32", "uint8"), white=np.float32(255))
    backend = ForeignBackend(path)
    assert (backend.io_spec.input_layout, backend.io_spec.output_layout) == ("NCHW", "NHWC")
    assert (backend.io_spec.input_peak, backend.io_spec.output_peak) == (1, 255)
    np.testing.assert_allclose(backend.upscale(lr), repeated(lr), atol=1e-7)


def test_undeclared_shapes_are_found_by_trying(path: Path, lr: Batch) -> None:
    nodes = [
        node("Transpose", ["picture"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "weights"], ["kept"]),
        repeat("kept", "large"),
        node("Transpose", ["large"], ["enlarged"], perm=[0, 2, 3, 1]),
    ]
    weights = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)  # refuses any depth but 3
    save(path, nodes, ("a", "b", "c", "d"), weights=weights)
    backend = ForeignBackend(path)
    assert (backend.io_spec.input_layout, backend.io_spec.channels) == ("NHWC", 3)
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    with pytest.raises(
        ModelError, match=r"found no input format for its picture .*; give hints for its layout"
    ):
        ForeignBackend(path, Hints(layout="NCHW"))


def test_fixed_batches_are_filled_up(path: Path) -> None:
    save(path, [repeat("picture")], (2, 3, "h", "w"))
    lr = sample_batch(3, 9, 8)
    np.testing.assert_array_equal(ForeignBackend(path).upscale(lr), repeated(lr))


@pytest.mark.parametrize("scale", [1, 2, 3, 8, 16])
def test_the_scale_is_found(path: Path, lr: Batch, scale: int) -> None:
    backend = ForeignBackend(repeating(path, scale=scale))
    assert backend.info.scale == scale
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr, scale))


def test_scales_above_16_are_rejected(path: Path) -> None:
    with pytest.raises(ModelError, match="upscales by 17; expected 1 to 16"):
        ForeignBackend(repeating(path, scale=17))


def test_networks_without_picture_input_or_output_are_rejected(path: Path) -> None:
    save(path, [node("Identity", ["picture"], ["enlarged"])], FREE[1:])
    with pytest.raises(ModelError, match=r"tensor\(float\) \[3, 'h', 'w'\]; expected rank 4 of"):
        ForeignBackend(path)
    # Its output shows its input if that is taken for rows of five pixels, channels last.
    save(path, [node("Relu", ["picture"], ["enlarged"])], ("b", 5, "h", "w"))
    with pytest.raises(
        ModelError, match=r"for its picture \['b', 5, 'h', 'w'\]: no layout has 1, 3 or 4 channels"
    ):
        ForeignBackend(path)
    save(path, [node("GlobalAveragePool", ["picture"], ["enlarged"])])
    with pytest.raises(ModelError, match=r"192x64 pixels gave an output of \(1, 3, 1, 1\)"):
        ForeignBackend(path)


def test_several_outputs_need_a_name_and_several_inputs_are_refused(path: Path, lr: Batch) -> None:
    model = onnx.load(repeating(path))
    model.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, [None] * 4))
    onnx.save(model, path)
    with pytest.raises(
        ModelError, match=r"has the outputs enlarged .*, wide .*; choose one with the hint output="
    ):
        ForeignBackend(path)
    backend = ForeignBackend(path, Hints(output="enlarged"))
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    model.graph.input.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1]))
    onnx.save(model, path)
    with pytest.raises(
        ModelError, match=r"has the inputs picture .*, noise \[1\]; expected only the picture"
    ):
        ForeignBackend(path, Hints(output="enlarged"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_our_weights_have_the_same_pixels_without_their_metadata(
    path: Path, lr: Batch, precision: Any
) -> None:
    ours = find_onnx("psnr", 2, precision)
    own, other = OrtBackend(ours), ForeignBackend(anonymous(ours, path))
    assert (other.io_spec.input, other.io_spec.output) == ("pixel_values", "reconstruction")
    assert (other.io_spec.channels, other.io_spec.rule.multiple, other.io_spec.size) == (3, 1, None)
    assert (other.io_spec.input_peak, other.io_spec.output_peak) == (1, 1)
    assert other.info.precision == own.info.precision == precision
    np.testing.assert_array_equal(other.upscale(lr), own.upscale(lr))


@pytest.mark.parametrize("name", ["srcnn", "srgan"])
def test_our_baselines_have_the_same_pixels_without_their_metadata(
    tmp_path: Path, path: Path, lr: Batch, name: str
) -> None:
    export_onnx(small_baseline(name), tmp_path / "ours.onnx")
    untrained = Hints(input_peak=1, output_peak=1)  # gives pictures unlike its input
    own = OrtBackend(tmp_path / "ours.onnx")
    other = ForeignBackend(anonymous(tmp_path / "ours.onnx", path), untrained)
    np.testing.assert_array_equal(other.upscale(lr), own.upscale(lr))


def test_info_describes_what_runs(path: Path, photo: NDArray[np.uint8]) -> None:
    backend = ForeignBackend(anonymous(find_onnx("psnr", 1), path))
    assert backend.info.summary == "ort (CPUExecutionProvider), fp32"
    assert (backend.info.steps, backend.info.receptive_radius) == (None, None)
    assert (backend.info.largest, backend.info.model) == (None, str(path))
    found = "NCHW float32 RGB, white is 1"
    assert backend.info.io_format == f"{found} → reconstruction: {found}"
    tiled, whole = (Upscaler(backend=backend, halo="exact", tile=t)(photo) for t in (48, 0))
    np.testing.assert_allclose(tiled, whole, atol=1)  # its halo is measured


@pytest.mark.parametrize(
    ("precision", "most"),
    [
        pytest.param("fp32", 1e-6, marks=NEEDS_OPENVINO),
        pytest.param("bf16", 1e-2, marks=BF16_BY_OPENVINO),
    ],
)
def test_openvino_runs_it(
    path: Path, lr: Batch, capfd: pytest.CaptureFixture[str], precision: str, most: float
) -> None:
    with ForeignBackend(repeating(path), place=Place("openvino"), precision=precision) as backend:
        assert backend.info.summary == f"openvino (CPU), {precision}"
        np.testing.assert_allclose(backend.upscale(lr), repeated(lr), atol=most)
    assert capfd.readouterr() == ("", "")


@NEEDS_OPENVINO
def test_what_openvino_cannot_compile_is_reported(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = [node("SampleOp", ["picture"], ["odd"], domain="com.microsoft"), repeat("odd")]
    with pytest.raises(ModelError, match=r"OpenVINO can't compile it: .*SampleOp"):
        ForeignBackend(save(path, nodes, domain="com.microsoft"), place=Place("openvino"))
    assert capfd.readouterr() == ("", "")


def test_an_unknown_place_or_precision_is_refused(path: Path) -> None:
    with pytest.raises(BackendError, match="no provider named 'tpu'"):
        ForeignBackend(repeating(path), place=Place("ort", "tpu"))
    with pytest.raises(BackendError, match="'ort:cpu' runs fp32 graphs in fp32, not in bf16"):
        ForeignBackend(path, precision="bf16")


def test_failures_while_running_are_backend_errors(
    path: Path, lr: Batch, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = [  # takes no more than 64 columns, which is not seen while probing
        node("Slice", ["picture", "from", "to", "axis"], ["head"]),
        node("Shape", ["picture"], ["shape"]),
        node("Reshape", ["head", "shape"], ["same"]),
        repeat("same"),
    ]
    bounds = {"from": np.array([0]), "to": np.array([64]), "axis": np.array([3])}
    backend = ForeignBackend(save(path, nodes, **bounds))
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    with pytest.raises(BackendError, match=r"failed on an input of .*Reshape"):
        backend.upscale(sample_batch(1, 8, 65))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (RuntimeError("Failed to allocate memory for 5 bytes\nmore"), MemoryError, "5 bytes$"),
        (MemoryError(), MemoryError, "MemoryError"),
        (RuntimeError(), BackendError, r"failed on an input of .*: RuntimeError"),
    ],
)
def test_out_of_memory_is_distinguished_from_other_failures(
    path: Path, lr: Batch, error: Exception, kind: type[Exception], reason: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    backend = ForeignBackend(repeating(path))
    backend._session = SimpleNamespace(run=fail)
    with pytest.raises(kind, match=reason):
        backend.upscale(lr)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "published"), [("Set5", 28.42), ("Set14", 26.00)])
def test_a_foreign_graph_gets_its_published_score(
    name: str, published: float, data: Path, path: Path
) -> None:
    backend = ForeignBackend(bicubic(path), Hints(input_peak=255, output_peak=255))
    upscaler = Upscaler(backend=backend)
    found = [compare(upscaler(image.lr), image.hr).psnr for image in find_set(name, data)]
    assert np.mean(found) == pytest.approx(published, abs=0.02)
