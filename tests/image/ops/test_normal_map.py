"""Normal maps: unit length, blue of two channels, and what stays as it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repeat
from numpy.typing import NDArray
from PIL import Image

from agsr.backend import Batch
from agsr.engines.upscaler import Upscaler
from agsr.errors import ImageError
from agsr.image.files import read_rgb
from agsr.image.ops.normal_map import doubt
from agsr.image.ops.output_size import OutputSize
from agsr.image.picture import Picture


class Fading(Repeat):
    """Makes vectors shorter, as averaging does."""

    def _run(self, lr: Batch) -> Batch:
        return super()._run(lr) * np.float32(0.5) + np.float32(0.25)


def _directions(height: int = 150, width: int = 20) -> NDArray[np.float64]:
    """Vectors of unit length, over more rows than are at work at a time."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(height, width, 3))
    vectors[..., 2] = np.abs(vectors[..., 2]) + 0.1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=2, keepdims=True))


def _colours(vectors: NDArray[np.float64], dtype: type) -> NDArray[Any]:
    if dtype is np.float32:
        return ((vectors + 1) / 2).astype(np.float32)
    white = np.iinfo(dtype).max
    return np.floor((vectors + 1) / 2 * white + 0.5).astype(dtype)


def _vectors(pixels: NDArray[Any]) -> NDArray[np.float64]:
    white = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    return pixels / white * 2 - 1


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    cosine = (one * other).sum(2) / np.linalg.norm(one, axis=2) / np.linalg.norm(other, axis=2)
    return np.asarray(np.degrees(np.arccos(cosine.clip(-1, 1))))


def _repeated(image: NDArray[Any]) -> NDArray[Any]:
    return image.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize(
    ("dtype", "length", "angle"),
    [(np.uint8, 0.01, 1.5), (np.uint16, 1e-4, 0.01), (np.float32, 1e-5, 0.05)],
)
def test_vectors_get_unit_length_and_keep_their_direction(
    dtype: type, length: float, angle: float
) -> None:
    vectors = _directions()
    large = _vectors(Upscaler(backend=Fading(), normal_map=True)(_colours(vectors, dtype)))
    assert large.shape == (600, 80, 3)
    assert abs(np.linalg.norm(large, axis=2) - 1).max() < length
    assert _angle(large, _repeated(vectors)).max() < angle


@pytest.mark.parametrize("blue", [0, 128, 255, None])
def test_two_channels_become_three(blue: int | None) -> None:
    vectors = _directions()
    colours = _colours(vectors, np.uint8)
    colours[..., 2] = np.arange(20) % 2 if blue is None else blue  # of a lossy file
    large = _vectors(Upscaler(backend=Repeat(), normal_map=True)(colours))
    # Where z is small, half a level of x or y is much of it.
    steep = vectors[..., 2] < 0.3
    difference = abs(large - _repeated(vectors)).max(axis=2)
    assert difference[~_repeated(steep)].max() < 0.03
    assert abs(np.linalg.norm(large, axis=2) - 1).max() < 0.02


def test_a_flat_map_stays_what_it_was() -> None:
    flat = np.full((9, 7, 3), (128, 128, 255), np.uint8)
    result = Upscaler(backend=Repeat(), normal_map=True)(flat)
    assert np.array_equal(result, _repeated(flat))


def test_shrunk_maps_have_unit_length() -> None:
    pixels = np.full((8, 8, 3), (0, 128, 128), np.uint8)
    pixels[:, 4:] = (255, 128, 128)
    upscaler = Upscaler(backend=Repeat(), normal_map=True)
    result = upscaler.picture(Picture(pixels.astype(np.uint16) * 257), sizing=OutputSize(scale=0.3))
    assert abs(np.linalg.norm(_vectors(result.pixels), axis=2) - 1).max() < 1e-3


@pytest.mark.parametrize("grey", [0, 115, 127, 128, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_places_without_a_direction_point_outwards(grey: int, dtype: type) -> None:
    vectors = _directions(8, 9)
    vectors[..., 2] = vectors[..., 2].clip(0.5)
    colours = _colours(vectors / np.linalg.norm(vectors, axis=2, keepdims=True), dtype)
    unit = 257 if dtype is np.uint16 else 1 / 255 if dtype is np.float32 else 1
    colours[:, 4:] = np.asarray(grey * unit, dtype)
    large = _vectors(Upscaler(backend=Repeat(), normal_map=True)(colours))
    assert abs(large[:, 16:] - (0, 0, 1)).max() < 0.01
    assert _angle(large[:, :16], _repeated(_vectors(colours))[:, :16]).max() < 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_only_maps_that_point_below_the_surface_stay_so(dtype: type) -> None:
    tangent = np.full((4, 4, 3), (0.995, 0.0, 0.1))
    tangent[0] = (0, 0, 1)

    class Dimming(Repeat):
        def _run(self, lr: Batch) -> Batch:
            return super()._run(lr) - np.float32(0.2)

    upscaler = Upscaler(backend=Dimming(), normal_map=True)
    assert _vectors(upscaler(_colours(tangent, dtype)))[..., 2].min() > -0.005
    tangent[3] = (0, 0, -1)  # of object space
    assert _vectors(upscaler(_colours(tangent, dtype)))[..., 2].min() < -0.8


def test_alpha_of_a_normal_map_is_data() -> None:
    colours = _colours(_directions(6, 5), np.uint8)
    alpha = np.zeros((6, 5), np.uint8)
    alpha[:, 3:] = 200
    result = Upscaler(backend=Repeat(), normal_map=True)(np.dstack([colours, alpha]))
    assert np.array_equal(result[..., 3], _repeated(alpha))
    assert _angle(_vectors(result[..., :3]), _repeated(_vectors(colours))).max() < 1.5


def test_a_grey_picture_is_no_normal_map() -> None:
    with pytest.raises(ImageError, match="the picture is grey, and a normal map has red"):
        Upscaler(backend=Repeat(), normal_map=True)(np.zeros((4, 4), np.uint8))


def _of_heights(roughness: float, slope: float, side: int = 96) -> NDArray[np.float64]:
    """Normals of a random surface that tiles."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(side, side)))
    heights = np.fft.ifft2(noise * frequency**-roughness).real
    y, x = np.gradient(heights / heights.std())
    vectors = np.stack([-x * slope, -y * slope, np.ones_like(x)], axis=2)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=2, keepdims=True))


@pytest.mark.parametrize("slope", [0.5, 3, 20])
@pytest.mark.parametrize("roughness", [1.0, 1.5, 2.0])
def test_normal_maps_are_no_cause_for_doubt(roughness: float, slope: float) -> None:
    vectors = _of_heights(roughness, slope)
    pixels = _colours(vectors, np.uint8)
    assert doubt(Picture(pixels)) is None
    two = pixels.copy()
    two[..., 2] = 0
    assert doubt(Picture(two)) is None
    turned = vectors[..., [2, 0, 1]]  # in object space half of them point below
    assert doubt(Picture(_colours(turned, np.uint8))) is None
    if roughness == 2:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=75)
        assert doubt(Picture(np.asarray(Image.open(file)))) is None


def _is_doubted(photo: NDArray[np.uint8]) -> bool:
    return "is it a normal map?" in str(doubt(Picture(photo)))


def test_photographs_are_doubted(photo: NDArray[np.uint8]) -> None:
    assert _is_doubted(photo)
    assert _is_doubted(photo // 2)  # whose blue holds no z
    red = photo // 4
    red[..., 0] += 130  # about as long as unit vectors, but below the surface
    assert _is_doubted(red)


@pytest.mark.data
@pytest.mark.parametrize("folder", ["val/Kodak24", "Set5/HR", "Set14/HR"])
def test_every_photograph_of_the_sets_is_doubted(data: Path, folder: str) -> None:
    photos = {path.name: read_rgb(path) for path in sorted((data / folder).glob("*.png"))}
    assert photos
    colour = {name: photo for name, photo in photos.items() if photo.ndim == 3}
    assert [name for name, photo in colour.items() if not _is_doubted(photo)] == []
    assert [name for name, photo in colour.items() if not _is_doubted(photo // 2)] == []


def test_what_looks_like_no_normal_map_is_reported() -> None:
    vectors = _directions()
    normal_map = Picture(_colours(vectors, np.uint8))
    assert doubt(normal_map) is None
    assert doubt(Picture(normal_map.pixels[..., 0])) is None  # which is refused
    two = normal_map.pixels.copy()
    two[..., 2] = 0
    assert doubt(Picture(two)) is None
    photo = np.random.default_rng(0).integers(60, 200, (150, 20, 3), np.uint8)
    assert "% of its vectors are far from unit length; is it a" in str(doubt(Picture(photo)))
    swizzled = np.full((150, 20, 3), 255, np.uint8)
    swizzled[..., 1] = normal_map.pixels[..., 1]
    reported = doubt(Picture(swizzled, normal_map.pixels[..., 0]))
    assert reported == "red is constant; if x is in alpha (DXT5nm), use --separate-alpha instead"


def test_data_is_mirrored_at_the_border_where_nothing_else_is_asked_for() -> None:
    for options in ({"normal_map": True}, {"separate_alpha": True}):
        assert Upscaler(backend=Repeat(), **options).tiling[2] == "mirror"
        assert Upscaler(backend=Repeat(), border="wrap", **options).tiling[2] == "wrap"
        assert Upscaler(backend=Repeat(), halo=0, **options).tiling[2] is None
    assert Upscaler(backend=Repeat()).tiling[2] is None
