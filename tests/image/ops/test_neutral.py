"""Colour pictures in which red, green and blue are equal come out that way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Repeat
from numpy.typing import NDArray

from agsr.engines.upscaler import Upscaler
from agsr.image import read_picture
from agsr.image.ops.output_size import OutputSize
from agsr.image.picture import Picture

GREY_RGB = ROOT / "tests/stills/greyrgb.png"


class Tinting(Repeat):
    """Adds to red, as networks trained on colour do."""

    def _run(self, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        sr = super()._run(lr) * np.float32(0.5)
        sr[:, 0] += np.float32(0.1)
        return sr


def _neutral(pixels: NDArray[Any]) -> bool:
    return bool((pixels == pixels[..., :1]).all())


@pytest.mark.parametrize("weights", ["psnr", "gan", "photo"])
def test_shipped_weights_do_not_tint_grey_saved_as_rgb(weights: str) -> None:
    picture = read_picture(GREY_RGB)
    assert picture.pixels.ndim == 3
    with Upscaler(weights, backend="ort", steps=1) as upscaler:
        assert _neutral(upscaler.picture(picture).pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("scale", [4, 1.5, 0.5])
@pytest.mark.parametrize("opacity", [False, True])
def test_no_tint_in_any_type_size_or_with_alpha(dtype: Any, scale: float, opacity: bool) -> None:
    random = np.random.default_rng(0)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = (random.random((40, 30, 1)) * white).astype(dtype).repeat(3, axis=2)
    alpha = (random.random((40, 30)) * white).astype(dtype) if opacity else None
    if alpha is not None:
        alpha[:10] = 0
        pixels[:10, :, 0] = 0  # hidden colour decides nothing
    upscaler = Upscaler(backend=Tinting(), tile=16, halo=4)
    result = upscaler.picture(Picture(pixels, alpha), sizing=OutputSize(scale=scale))
    assert result.pixels.dtype == dtype
    if scale > 1:
        assert _neutral(result.pixels)


def test_a_single_coloured_pixel_makes_a_colour_picture() -> None:
    pixels = np.full((200, 30, 3), 7, np.uint8)
    pixels[-1, -1, 2] = 8
    assert not _neutral(Upscaler(backend=Tinting())(pixels))


def test_hidden_colour_counts_where_alpha_is_data() -> None:
    pixels = np.full((8, 8, 3), 7, np.uint8)
    pixels[0, 0] = 1, 2, 3
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[0, 0] = 0
    for separate, expected in ((False, True), (True, False)):
        upscaler = Upscaler(backend=Tinting(), separate_alpha=separate)
        assert _neutral(upscaler.picture(Picture(pixels, alpha)).pixels) is expected


def test_normal_maps_are_never_grey() -> None:
    """Equal components are a direction like any other."""
    pixels = np.full((8, 8, 3), 200, np.uint8)
    assert not _neutral(Upscaler(backend=Tinting(), normal_map=True)(pixels))
