"""Networks of other projects at every scale: pictures, tiles, alpha, passes, and colours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NEEDS_OPENVINO
from fake_gpu import FakeCuda
from foreign_graphs import (
    blurring,
    dimming,
    node,
    repeat,
    repeated,
    repeated_image,
    repeating,
    save,
)
from numpy.typing import NDArray
from onnx import TensorProto

from agsr import OutputSize, Upscaler
from agsr.backend import Batch
from agsr.bicubic import upscale_planes
from agsr.engines.foreign import ForeignBackend, Hints
from agsr.engines.open import check_request, open_backend
from agsr.engines.runtimes.session_device import SessionDevice
from agsr.engines.weights_file import Kind, declared_scale, kind_of
from agsr.errors import (
    AgsrError,
    BackendError,
    BackendRequestError,
    HintsError,
    ModelError,
    RequestError,
)
from agsr.export.verify import sample_batch
from agsr.image.ops.alpha import bounded
from agsr.image.picture import Picture, samples_of
from agsr.metrics.luma import full_range_luma
from agsr.pretrained import find_onnx

SCALES = [1, 2, 3, 8]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


@pytest.fixture
def lr() -> Batch:
    return sample_batch(1, 19, 26)


def _noise(*shape: int, kind: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(21, 34, 3), (21, 34, 4), (21, 34), (1, 1, 3)])
def test_tiles_of_any_scale_join_to_the_whole_result(
    path: Path, scale: int, shape: tuple[int, ...]
) -> None:
    image = _noise(*shape)
    image[..., 3:] |= 1  # fully transparent pixels would get the colour of others
    with Upscaler(str(repeating(path, scale=scale)), tile=8, halo=1) as upscaler:
        assert upscaler.info.scale == scale
        assert np.array_equal(upscaler(image), repeated_image(image, scale))
        deep = _noise(*shape[:2], 3, kind="uint16")
        assert np.array_equal(upscaler(deep), repeated_image(deep, scale))


@pytest.mark.parametrize("scale", SCALES)
def test_a_halo_of_the_radius_makes_tiles_equal_the_whole(path: Path, scale: int) -> None:
    image = _noise(30, 41, 3).astype(np.float32) / np.float32(255)
    blurring(path, scale)
    whole, tiled = (Upscaler(str(path), tile=tile, halo=1)(image) for tile in (0, 9))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    sums = sum(padded[y : y + 30, x : x + 41] for y in range(3) for x in range(3))
    np.testing.assert_allclose(whole, repeated_image(np.asarray(sums) / 9, scale), atol=1e-6)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "NHWC"},
        {"kind": "uint8"},
        {"kind": "float16"},
        {"size": (16, 16), "layout": "NHWC", "kind": "uint8"},
    ],
)
@pytest.mark.parametrize("scale", [1, 3])
def test_formats_are_found_at_other_scales(
    path: Path, lr: Batch, scale: int, options: dict[str, Any]
) -> None:
    image = np.rint(lr[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    with Upscaler(str(repeating(path, scale=scale, **options)), halo=2) as upscaler:
        assert np.array_equal(upscaler(image), repeated_image(image, scale))


@pytest.mark.parametrize("scale", SCALES)
def test_luma_networks_of_any_scale_get_chroma_by_bicubic(
    path: Path, lr: Batch, scale: int
) -> None:
    sr = ForeignBackend(repeating(path, channels=1, scale=scale)).upscale(lr)
    luma = full_range_luma(lr)
    expected = repeated(luma, scale) + upscale_planes(lr - luma, scale)
    np.testing.assert_allclose(sr, expected, atol=1e-6)


def test_rgba_networks_get_an_opaque_picture(path: Path, lr: Batch) -> None:
    nodes = [  # colour is multiplied by alpha
        node("Slice", ["picture", "from", "to", "axis"], ["alpha"]),
        node("Mul", ["picture", "alpha"], ["shown"]),
        repeat("shown"),
    ]
    bounds = {"from": np.array([3]), "to": np.array([4]), "axis": np.array([1])}
    scales = np.array([1, 1, 2, 2], np.float32)
    save(path, nodes, ("b", 4, "h", "w"), scales=scales, **bounds)
    backend = ForeignBackend(path)
    assert (backend.io_spec.channels, backend.info.scale) == (4, 2)
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr, 2))
    image = _noise(12, 9, 4) | np.array([0, 0, 0, 1], np.uint8)
    assert np.array_equal(Upscaler(backend=backend)(image), repeated_image(image, 2))


@pytest.mark.parametrize(("network", "scale"), [(2, 4), (2, 2), (3, 9), (1, 1)])
def test_up_to_the_square_of_the_scale_is_made(path: Path, network: int, scale: int) -> None:
    image = _noise(9, 7, 3)
    with Upscaler(str(repeating(path, scale=network))) as upscaler:
        assert np.array_equal(upscaler(image, scale=scale), repeated_image(image, scale))
        with pytest.raises(ValueError, match=rf"at most {network**2}[,:] .*×{network} network"):
            upscaler(image, scale=network**2 + 1)
        assert upscaler(image, size=(1000, 1000)).shape[:2] == (9 * network**2, 7 * network**2)


@pytest.mark.parametrize(("network", "factor"), [(1, 1), (3, 3), (3, 1), (3, 9)])
@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7, 4), (8, 7, 3), (1, 1, 3)])
def test_odd_sides_are_cropped_and_not_resampled(
    path: Path, network: int, factor: int, shape: tuple[int, ...]
) -> None:
    image = _noise(*shape)
    image[..., 3:] |= 1
    expected = repeated_image(image, factor)
    if min(expected.shape[:2]) == 1:  # even sides can't be smaller than 2
        expected = repeated_image(expected, 2)
    rows, columns = (side // 2 * 2 for side in expected.shape[:2])
    picture = Picture(image[..., :3], image[..., 3] if shape[2] == 4 else None)
    sizing = OutputSize(scale=factor, network=network, multiple=2)
    for border in (None, "mirror"):
        upscaler = Upscaler(str(repeating(path, scale=network)), border=border)
        result = samples_of(upscaler.picture(picture, sizing=sizing))
        assert np.array_equal(result, expected[:rows, :columns])


def test_two_passes_equal_two_calls(path: Path) -> None:
    image = _noise(9, 7, 3)
    upscaler = Upscaler(str(repeating(path, scale=2)))
    between = upscaler(image, size=(11, 14))
    assert between.shape == (14, 11, 3)
    once = upscaler(between, size=(21, 27))
    assert np.array_equal(upscaler(image, scale=3), once)


def test_a_network_that_restores_runs_at_every_size(path: Path) -> None:
    image = np.full((12, 8, 3), 200, np.uint8)
    with Upscaler(str(dimming(path, [0.96] * 3))) as upscaler:
        assert np.array_equal(upscaler(image), np.full((12, 8, 3), 192))
        assert np.array_equal(upscaler(image, scale=0.5), np.full((6, 4, 3), 192))


@pytest.mark.parametrize("scale", SCALES)
def test_alpha_is_bounded_by_the_nearest_pixels_at_any_scale(scale: int) -> None:
    small = _noise(5, 6)
    wild = _noise(5 * scale, 6 * scale)
    found = bounded(wild, small)
    for (y, x), value in np.ndenumerate(wild):
        rows, columns = (
            {int(np.floor(c)), int(np.floor(c) + 1), int(np.ceil(c) - 1), int(np.ceil(c))}
            for c in ((y + 0.5) / scale - 0.5, (x + 0.5) / scale - 0.5)
        )
        near = small[np.ix_(np.clip([*rows], 0, 4), np.clip([*columns], 0, 5))]
        assert found[y, x] == min(max(value, near.min()), near.max())


def test_an_output_of_exchanged_colours_is_found_and_reported(
    path: Path, lr: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [node("Gather", ["picture", "order"], ["swapped"], axis=1), repeat("swapped")]
    save(path, nodes, order=np.array([2, 1, 0]))
    backend = ForeignBackend(path)
    assert "red and blue exchanged" in caplog.text
    assert "output_order=bgr" in caplog.text
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    known = ForeignBackend(path, Hints.parse("output_order=rgb,input_peak=1,output_peak=1"))
    np.testing.assert_array_equal(known.upscale(lr), repeated(lr)[:, ::-1])


@pytest.mark.parametrize(
    ("gains", "hints", "warned"),
    [
        ((1, 1, 1), "", False),
        ((0.5, 1, 1), "input_peak=1,output_peak=1", True),
        ((1, 1, 1), "input_peak=1,output_peak=255", True),
        ((1, 1, 1), "input_peak=1,output_peak=1", False),
    ],
)
def test_other_colours_of_the_test_picture_are_reported(
    path: Path, caplog: pytest.LogCaptureFixture, gains: Any, hints: str, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        ForeignBackend(dimming(path, gains, 2), Hints.parse(hints))
    assert ("the hints input_peak=1 and output_peak=" in caplog.text) == warned
    assert bool(caplog.records) == warned


def test_kinds_of_weights(path: Path, tmp_path: Path) -> None:
    assert kind_of("psnr") is Kind.SHIPPED
    assert kind_of(str(find_onnx("psnr", 1))) is Kind.ONNX
    assert kind_of(str(repeating(path))) is Kind.FOREIGN_ONNX
    assert kind_of(str(tmp_path / "missing.onnx")) is Kind.ONNX  # opening it reports that
    path.write_text("no ONNX file")
    assert kind_of(str(path)) is Kind.ONNX
    assert kind_of("a.engine") is Kind.ENGINE
    assert kind_of("runs/best") is kind_of("a.safetensors") is Kind.CHECKPOINT


def test_the_scale_is_known_before_loading_except_of_foreign_files(
    path: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "a.engine"
    assert declared_scale(str(engine)) is None
    assert declared_scale(str(tmp_path / "missing.onnx")) is None
    Path(f"{engine}.json").write_text('{"report": {"metadata": {"scale": 2}}}')
    assert declared_scale(str(engine)) == 2
    assert declared_scale("psnr") == declared_scale(str(find_onnx("psnr", 1))) == 4
    assert declared_scale(str(repeating(path, scale=2))) is None


def test_options_of_other_kinds_of_weights_are_rejected(path: Path) -> None:
    repeating(path)
    for check in (check_request, open_backend):
        with pytest.raises(BackendRequestError, match="--steps is for networks of this project"):
            check("ort", str(path), steps=2)
        with pytest.raises(BackendRequestError, match="psnr is shipped weights; remove them"):
            check("ort", "psnr", hints="order=bgr")
    with pytest.raises(HintsError, match="no hint named 'colour'"):
        open_backend("ort", str(path), hints="colour=x")


@pytest.mark.parametrize("backend", ["auto", "ort"])
def test_hints_for_an_unreadable_file_do_not_hide_why_it_cannot_be_read(
    path: Path, backend: str
) -> None:
    with pytest.raises(AgsrError, match=r"foreign\.onnx: .*no such file"):
        open_backend(backend, str(path), hints="order=bgr")
    path.write_text("no ONNX file")
    with pytest.raises(ModelError, match=r"foreign\.onnx: not an ONNX file"):
        open_backend(backend, str(path), hints="order=bgr")


def test_a_file_of_another_precision_is_rejected_with_what_to_do(path: Path) -> None:
    same = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    save(path, [node("Conv", ["picture", "same"], ["kept"]), repeat("kept")], same=same)
    expected = r"foreign\.onnx: 'ort:cpu' runs fp32 graphs in fp32, not in fp16; .*--precision"
    with pytest.raises(BackendError, match=expected) as caught:
        open_backend("ort", str(path), precision="fp16")
    assert not isinstance(caught.value, RequestError)  # another file would make it right
    nodes = [
        node("Cast", ["picture"], ["half"], to=TensorProto.FLOAT16),
        node("Conv", ["half", "same"], ["kept"]),
        node("Cast", ["kept"], ["wide"], to=TensorProto.FLOAT),
        repeat("wide"),
    ]
    save(path, nodes, same=same.astype(np.float16))
    assert ForeignBackend(path, precision="fp16").info.precision == "fp16"
    with pytest.raises(BackendError, match="runs fp16 graphs in fp16, not in fp32"):
        ForeignBackend(path, precision="fp32")


@pytest.mark.parametrize("backend", ["auto", "ort", pytest.param("openvino", marks=NEEDS_OPENVINO)])
def test_every_backend_opens_foreign_files_with_hints(path: Path, lr: Batch, backend: str) -> None:
    dimming(path, [0.75, 1, 1], 2)
    expected = repeated(lr, 2)
    expected[:, 2] *= 0.75
    with open_backend(backend, str(path), hints="order=bgr", allow_fallback=True) as opened:
        assert opened.info.scale == 2
        np.testing.assert_allclose(opened.upscale(lr), expected, atol=1e-6)


def test_tiles_of_a_session_fit_into_the_memory_of_its_gpu(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    opened: list[int] = []
    monkeypatch.setattr(cuda, "free_memory", lambda: 12345, raising=False)
    monkeypatch.setattr(
        "agsr.engines.runtimes.session_device.open_cuda",
        lambda index: opened.append(index) or cuda,
    )
    backend = ForeignBackend(repeating(path))
    assert backend.free_memory() is None  # on the CPU, main memory counts
    backend._device = SessionDevice("cuda", 1)
    assert (backend.free_memory(), backend.free_memory(), cuda.depth) == (12345, 12345, 0)
    assert opened == [1]


def test_output_sizes_follow_the_network() -> None:
    assert OutputSize().for_network(3).suffix == "_x3"
    assert OutputSize(network=1).result(5, 7) == (5, 7)
    assert OutputSize(box=(50, 50), network=2).result(5, 10) == (20, 40)
    assert not OutputSize(box=(50, 50), network=2).reached(20, 40)
    assert OutputSize(scale=2).for_network(2).suffix == "_x2"
    with pytest.raises(ValueError, match="at most 1: this ×1 network restores and does not"):
        OutputSize(scale=2).for_network(1)


@pytest.mark.parametrize(
    ("network", "scale", "advised"), [(2, 5, True), (2, 17, False), (8, 100, False), (2, -1, False)]
)
def test_another_network_is_advised_only_if_it_makes_the_scale(
    network: int, scale: int, advised: bool
) -> None:
    with pytest.raises(ValueError, match=f"at most {network**2}") as caught:
        OutputSize(scale=scale, network=network)
    assert ("-w psnr" in str(caught.value)) == advised
    assert ("passes" in str(caught.value)) == (scale > 0)
