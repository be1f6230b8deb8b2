from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Repeat
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agsr.engines.preflight import memory_needed
from agsr.engines.upscaler import Upscaler
from agsr.errors import ImageError
from agsr.image.encode import FORMATS, on_white
from agsr.image.ops.output_size import OutputSize
from agsr.image.ops.resample import downsample
from agsr.image.picture import Picture

SIDES = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("sizing", "size"),
    [
        (OutputSize(), (400, 600)),
        (OutputSize(scale=3), (300, 450)),
        (OutputSize(scale=2), (200, 300)),
        (OutputSize(scale=1.5), (150, 225)),
        (OutputSize(scale=0.01), (1, 2)),
        (OutputSize(box=(300, 300)), (200, 300)),  # --max-size 300
        (OutputSize(scale=8), (800, 1200)),
        (OutputSize(scale=4.1), (410, 615)),
        (OutputSize(box=(700, 900)), (467, 700)),
        (OutputSize(box=(99999, 99999)), (1600, 2400)),  # no more than 16 times
        (OutputSize(box=(500, 160)), (160, 240)),
    ],
)
def test_results_have_the_size_that_was_asked_for(
    sizing: OutputSize, size: tuple[int, int]
) -> None:
    assert sizing.result(100, 150) == size
    picture = Picture(np.zeros((100, 150, 3), np.uint8), np.zeros((100, 150), np.uint8))
    result = Upscaler(backend=Repeat()).picture(picture, sizing=sizing)
    assert result.pixels.shape == (*size, 3)
    assert result.alpha is not None
    assert result.alpha.shape == size


@given(height=SIDES, width=SIDES, box=st.tuples(SIDES, SIDES))
def test_a_box_is_never_exceeded_and_always_filled(
    height: int, width: int, box: tuple[int, int]
) -> None:
    found = OutputSize(box=box).result(height, width)
    assert 1 <= found[0] <= box[1]
    assert 1 <= found[1] <= box[0]
    largest = (16 * height, 16 * width)
    assert found[0] == box[1] or found[1] == box[0] or found == largest


@pytest.mark.parametrize(
    ("sizing", "suffix"),
    [
        (OutputSize(), "_x4"),
        (OutputSize(scale=1.5), "_x1.5"),
        (OutputSize(box=(640, 480)), "_fit640x480"),
        (OutputSize(box=(640, 640)), "_max640"),
    ],
)
def test_the_size_names_the_file(sizing: OutputSize, suffix: str) -> None:
    assert sizing.suffix == suffix


def test_what_needs_no_enlarging_is_not_enlarged_first() -> None:
    backend = Repeat()
    Upscaler(backend=backend).picture(
        Picture(np.zeros((8, 8, 3), np.uint8)), sizing=OutputSize(scale=1)
    )
    assert backend.shapes == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(64, 48), (64, 48, 3)])
def test_shrinking_averages_without_a_shift(dtype: type, shape: tuple[int, ...]) -> None:
    largest = np.iinfo(dtype).max
    flat = downsample(Picture(np.full(shape, largest // 3, dtype)), 27, 20)
    assert flat.pixels.dtype == dtype
    assert np.unique(flat.pixels).tolist() == [largest // 3]
    ramp = np.linspace(0, largest, 64)[:, None].repeat(48, axis=1).astype(dtype)
    small = downsample(Picture(ramp), 32, 24).pixels[4:-4].astype(float)
    expected = ramp.astype(float).reshape(32, 2, 24, 2).mean(axis=(1, 3))[4:-4]
    assert np.abs(small - expected).max() <= 1


def test_shrinking_removes_what_the_smaller_size_cannot_show() -> None:
    stripes = np.zeros((60, 60), np.uint8)
    stripes[:, ::2] = 200
    inside = downsample(Picture(stripes), 20, 20).pixels[:, 1:-1].astype(int)
    assert np.abs(inside - 100).max() <= 1


def test_shrinking_leaves_no_rim_of_hidden_colour() -> None:
    """A white disc above transparent black, on a white page, must stay invisible."""
    y, x = np.mgrid[:64, :64] - 31.5
    alpha = np.clip((22 - np.hypot(y, x)) * 128 + 128, 0, 255).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, 255, 0).repeat(3, axis=2).astype(np.uint8)
    result = downsample(Picture(pixels, alpha), 24, 24)
    assert result.alpha is not None
    assert on_white(result.pixels, result.alpha).min() >= 254


@pytest.mark.parametrize("options", [{}, {"normal_map": True}, {"border": "wrap"}])
@pytest.mark.parametrize("scale", [8, 16])
def test_beyond_four_times_the_result_is_that_of_two_runs(
    options: dict[str, Any], scale: float
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 256, (7, 9, 3), np.uint8)
    picture = Picture(pixels, rng.integers(0, 256, (7, 9), np.uint8))
    backend, shares = Repeat(), list[float]()
    upscaler = Upscaler(backend=backend, **options)
    found = upscaler.picture(picture, shares.append, OutputSize(scale=scale))
    height, width = OutputSize(scale=scale).result(7, 9)
    assert found.pixels.shape == (height, width, 3)
    between = (-(-width // 4), -(-height // 4))
    first = upscaler.picture(picture, sizing=OutputSize(box=between))
    assert first.pixels.shape[:2] == between[::-1]
    second = upscaler.picture(first, sizing=OutputSize(box=(width, height)))
    assert (found.pixels == second.pixels).all()
    assert found.alpha is not None
    assert second.alpha is not None
    assert (found.alpha == second.alpha).all()
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_a_result_of_two_passes_counts_the_picture_between_them() -> None:
    picture = Picture(np.zeros((10, 20, 3), np.uint8))
    row_bands = Upscaler(backend=Repeat()).row_bands(picture, sizing=OutputSize(scale=8))
    assert (row_bands.height, row_bands.width, row_bands.held) == (80, 160, 20 * 40 * 3)
    once = Upscaler(backend=Repeat()).row_bands(picture)
    assert memory_needed(FORMATS[".png"], row_bands, 4) > memory_needed(FORMATS[".png"], once, 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_floats_take_a_size_in_python(dtype: type, channels: int) -> None:
    image = np.random.default_rng(0).random((12, 16, channels)).astype(dtype)
    upscaler = Upscaler(backend=Repeat())
    assert upscaler(image, scale=2).shape == (24, 32, channels)
    result = upscaler(image, size=(40, 40))
    assert result.shape == (30, 40, channels)
    assert result.dtype == dtype
    flat = upscaler(np.full((12, 16, channels), 0.25, dtype), scale=1.5)
    assert np.allclose(flat, 0.25, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 1.5, 0.5])
def test_floats_are_shrunk_as_pillow_shrinks_them(scale: float) -> None:
    image = np.random.default_rng(0).random((24, 32), np.float32) * 0.4 + 0.3
    found = Upscaler(backend=Repeat())(image, scale=scale)
    times = 4 if scale > 1 else 1  # what needs no enlarging is not enlarged first
    large = Image.fromarray(image.repeat(times, axis=0).repeat(times, axis=1))
    expected = large.resize((round(32 * scale), round(24 * scale)), Image.Resampling.BICUBIC)
    assert np.abs(found - np.asarray(expected)).max() < 1e-5


def test_pillow_images_take_a_size_and_impossible_ones_are_rejected() -> None:
    upscaler, image = Upscaler(backend=Repeat()), Image.new("RGB", (16, 12))
    assert upscaler(image, scale=1.5).size == (24, 18)
    assert upscaler(image, size=(1000, 30)).size == (40, 30)
    with pytest.raises(ValueError, match="scale is 99; expected above 0, at most"):
        upscaler(image, scale=99)
    with pytest.raises(ValueError, match=r"size is \(0, 3\); expected \(width, height\)"):
        upscaler(image, size=(0, 3))
    with pytest.raises(ValueError, match=r"scale is 2 and size \(9, 9\); expected one of them"):
        upscaler(image, scale=2, size=(9, 9))
    assert upscaler(image, scale=np.float32(2), size=None).size == (32, 24)
    assert upscaler(image, size=(np.int64(32), np.int64(32))).size == (32, 24)


@pytest.mark.parametrize(
    ("arguments", "error", "reported"),
    [
        ({"scale": "2"}, TypeError, "scale is '2'; expected a number"),
        ({"scale": (2, 2)}, TypeError, r"scale is \(2, 2\); expected a number"),
        ({"scale": True}, TypeError, "scale is True; expected a number"),
        ({"scale": float("nan")}, ValueError, "scale is nan; expected above 0"),
        ({"size": 300}, TypeError, r"size is 300; expected \(width, height\)"),
        ({"size": "300x300"}, TypeError, r"size is '300x300'; expected \(width, height\)"),
        ({"size": ("3", "4")}, TypeError, r"size is \('3', '4'\); expected .* whole numbers"),
        ({"size": (3.5, 4)}, TypeError, r"size is \(3.5, 4\); expected .* whole numbers"),
        ({"size": (3, 4, 5)}, ValueError, r"size is \(3, 4, 5\); expected \(width, height\)"),
        ({"size": ()}, ValueError, r"size is \(\); expected \(width, height\)"),
    ],
)
def test_sizes_of_other_types_are_rejected_with_what_to_write(
    arguments: dict[str, Any], error: type[Exception], reported: str
) -> None:
    with pytest.raises(error, match=reported):
        Upscaler(backend=Repeat())(np.zeros((4, 4, 3), np.uint8), **arguments)


def test_barely_visible_float_colour_survives_shrinking() -> None:
    """Opacity of floats is small in numbers where it is not small for the eye."""
    pixels: NDArray[np.float32] = np.full((8, 8, 3), 0.5, np.float32)
    alpha: NDArray[np.float32] = np.zeros((8, 8), np.float32)
    alpha[4:] = 0.4
    pixels[:4] = 0
    small = downsample(Picture(pixels, alpha), 4, 4)  # type: ignore[arg-type]
    assert np.allclose(small.pixels[2:], 0.5, atol=1e-4)


def test_a_scale_that_leaves_no_pixel_is_rejected() -> None:
    reported = "the result would have 0x0 pixels: 150x100 by a scale of 0.001; use 0.0067 or more"
    with pytest.raises(ImageError, match=reported):
        OutputSize(scale=0.001).result(100, 150)
    assert OutputSize(scale=0.0067).result(100, 150) == (1, 1)
    assert OutputSize(scale=0.01).result(1, 150) == (1, 2)
    with pytest.raises(ImageError, match="0x0 pixels"):
        Upscaler(backend=Repeat())(np.zeros((9, 9, 3), np.uint8), scale=0.01)
