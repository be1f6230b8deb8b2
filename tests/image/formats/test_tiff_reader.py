"""TIFF files of rare kinds: thumbnails in front, deep samples, inks, and what is not supported."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image
from stills import STILLS, read_still

from agsr.errors import ImageError
from agsr.image.decode import decode


def test_a_thumbnail_in_front_is_not_taken_for_the_picture(
    caplog: pytest.LogCaptureFixture,
) -> None:
    picture = read_still("tiff-thumb-first.tif")
    with tifffile.TiffFile(STILLS / "tiff-thumb-first.tif") as file:
        assert np.array_equal(picture.pixels, file.pages[1].asarray())
    assert not caplog.messages  # it holds one picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_behind_a_thumbnail_is_found_in_sub_directories(dtype: Any) -> None:
    large = (np.arange(40 * 60 * 3) % 250).reshape(40, 60, 3).astype(dtype)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(large[::4, ::4], photometric="rgb", subifds=1, subfiletype=1)
        writer.write(large, photometric="rgb")
    assert np.array_equal(decode(stream.getvalue(), "a.tif").pixels, large)


@pytest.mark.parametrize("name", ["tiff-ycbcr22.tif", "tiff-big-be.tif"])
def test_rare_tiffs_are_read_as_another_decoder_reads_them(name: str) -> None:
    found = pyvips.Image.new_from_file(str(STILLS / name)).colourspace("srgb").numpy()
    difference = np.abs(read_still(name).pixels.astype(int) - found[..., :3])
    assert difference.mean() < 2


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint32, np.uint16])
def test_deep_tiffs_are_read_in_every_layout(
    order: Any, big: bool, compression: Any, planar: Any, dtype: Any
) -> None:
    levels = np.random.default_rng(0).random((12, 14, 3))
    white = 1 if dtype in (np.float16, np.float32, np.float64) else np.iinfo(dtype).max
    samples = (levels * white).astype(dtype)
    stored = np.moveaxis(samples, 2, 0) if planar == "separate" else samples
    stream = io.BytesIO()
    tifffile.imwrite(
        *(stream, np.ascontiguousarray(stored).astype(np.dtype(dtype).newbyteorder(order))),
        **{"byteorder": order, "bigtiff": big, "compression": compression},
        **{"photometric": "rgb", "planarconfig": planar},
    )
    pixels = decode(stream.getvalue(), "a.tif").pixels
    assert pixels.dtype == np.uint16
    assert np.abs(pixels / 65535 - samples.astype(float) / white).max() <= 1.1 / 65535


def test_truncated_deep_tiffs_are_rejected() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.full((40, 30, 3), 0.5, np.float32), photometric="rgb")
    whole = stream.getvalue()
    for cut in (1, 100, len(whole) // 2, len(whole) - 20):
        with pytest.raises(ImageError):
            decode(whole[:-cut], "a.tif")


def test_inks_with_alpha_become_colours_with_alpha() -> None:
    picture = read_still("tiff-cmyka.tif")
    stored = tifffile.imread(STILLS / "tiff-cmyka.tif")
    assert np.array_equal(picture.alpha, stored[..., 4])  # type: ignore[arg-type]
    inks = Image.fromarray(np.ascontiguousarray(stored[..., :4]), "CMYK").convert("RGB")
    assert np.abs(picture.pixels.astype(int) - np.asarray(inks)).max() <= 1


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros((4, 4), np.int16), "signed 16-bit samples; expected unsigned"),
        (np.full((4, 4), 7.0, np.float32), "floating-point samples from 7 to 7; expected 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "floating-point samples from nan to nan"),
        (np.zeros((4, 4), np.complex64), "samples of type 6"),
    ],
)
def test_unsupported_tiffs_are_named(samples: Any, reason: str) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, photometric="minisblack")
    with pytest.raises(ImageError, match=f"^a.tif: a TIFF file with {reason}"):
        decode(stream.getvalue(), "a.tif")
