"""16-bit TIFF files with planes apart or grey with alpha, as tifffile and libvips write them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from image_corpus import noise
from numpy.typing import NDArray
from PIL import ImageCms

from agsr.errors import ImageError
from agsr.image.decode import decode
from agsr.image.picture import Picture

HEIGHT, WIDTH = noise().shape
KINDS = {
    "grey-alpha": ((2,), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "grey-alpha-apart": (
        (2,),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "separate"},
    ),
    "rgb-apart": ((3,), {"photometric": "rgb", "planarconfig": "separate"}),
    "rgb-alpha-apart": (
        (4,),
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "planarconfig": "separate"},
    ),
}


def _written(samples: NDArray[Any], order: str = "<", big: bool = False, **options: Any) -> bytes:
    stream = io.BytesIO()
    if options.get("planarconfig") == "separate":
        samples = np.moveaxis(samples, 2, 0)
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=big) as writer:  # type: ignore[arg-type]
        writer.write(samples, **options)
    return stream.getvalue()


def _stored(picture: Picture) -> NDArray[Any]:
    planes = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
    return np.dstack(planes)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 4},
        {"tile": (16, 16)},
        {"compression": "zlib", "rowsperstrip": 4},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 4},
        {"compression": "zlib", "predictor": True, "tile": (16, 16)},
    ],
    ids=["whole", "strips", "tiles", "deflated", "differences", "differences-in-tiles"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_that_were_written(
    kind: str, options: dict[str, Any], big: bool, order: str
) -> None:
    shape, layout = KINDS[kind]
    samples = noise(*shape, dtype=np.uint16)
    found = decode(_written(samples, order, big, **layout, **options), "a.tif")
    assert found.pixels.dtype == np.uint16
    assert np.array_equal(_stored(found), samples)
    assert (found.alpha is None) == (kind == "rgb-apart")


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "none"])
@pytest.mark.parametrize("tile", [False, True])
def test_grey_with_alpha_by_libvips_is_read(compression: str, tile: bool) -> None:
    samples = noise(2, dtype=np.uint16)
    image = pyvips.Image.new_from_array(samples).copy(interpretation="grey16")
    content = image.tiffsave_buffer(
        compression=compression, predictor="horizontal", tile=tile, tile_width=16, tile_height=16
    )
    assert np.array_equal(_stored(decode(content, "a.tif")), samples)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_the_orientation_is_applied(kind: str, orientation: int) -> None:
    shape, layout = KINDS[kind]
    samples = noise(*shape, dtype=np.uint16)
    tag = [(274, "H", 1, orientation, True)]
    found = decode(_written(samples, **layout, extratags=tag), "a.tif")
    for number in range(samples.shape[2]):
        expected = pyvips.Image.new_from_array(np.ascontiguousarray(samples[..., number]))
        expected = expected.copy()
        expected.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        assert np.array_equal(_stored(found)[..., number], expected.autorot().numpy())


def test_what_the_file_says_is_kept_and_its_pages_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grey = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    grey[16:20] = b"GRAY"
    shape, layout = KINDS["grey-alpha"]
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for _ in range(2):
            writer.write(
                noise(*shape, dtype=np.uint16),
                **layout,
                iccprofile=bytes(grey),
                resolution=(300, 150),
                resolutionunit="inch",
                metadata=None,
            )
    found = decode(stream.getvalue(), "a.tif")
    assert found.metadata.icc == bytes(grey)
    assert found.metadata.dpi == (300, 150)
    assert "holds 2 pictures" in caplog.text


def test_white_is_zero_multiplied_and_unknown_samples_mean_what_the_tags_say() -> None:
    samples = noise(2, dtype=np.uint16)
    white = decode(
        _written(samples, photometric="miniswhite", extrasamples=["unassalpha"]), "a.tif"
    )
    assert np.array_equal(white.pixels, 65535 - samples[..., 0])
    unknown = decode(
        _written(samples, photometric="minisblack", extrasamples=["unspecified"]), "a.tif"
    )
    assert unknown.alpha is None
    assert np.array_equal(unknown.pixels, samples[..., 0])
    samples[..., 0] = samples[..., 1] // 2
    half = decode(_written(samples, photometric="minisblack", extrasamples=["assocalpha"]), "a.tif")
    assert np.abs(half.pixels[samples[..., 1] > 1000].astype(int) - 32767).max() <= 66


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_file_is_an_error(kind: str, compression: str | None) -> None:
    shape, layout = KINDS[kind]
    samples = noise(*shape, dtype=np.uint16)
    content = _written(samples, **layout, compression=compression, rowsperstrip=4)
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(content[:-600], "a.tif")


def test_too_large_a_picture_is_rejected_before_it_is_decoded() -> None:
    shape, layout = KINDS["grey-alpha"]
    content = _written(noise(*shape, dtype=np.uint16), **layout)
    with pytest.raises(ImageError, match=f"{WIDTH}x{HEIGHT} is"):
        decode(content, "a.tif", HEIGHT * WIDTH - 1)
