from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import disk_full_half_way
from numpy.typing import NDArray
from PIL import Image, ImageCms

from agsr.errors import ImageError
from agsr.image import (
    WRITABLE,
    Picture,
    Pixels,
    quiet_decoders,
    read_picture,
    read_rgb,
    write_picture,
)

LOSSLESS = [".png", ".tif", ".webp", ".bmp"]


def _smooth(shape: tuple[int, ...], dtype: Any = np.uint8) -> Pixels:
    noise = np.random.default_rng(0).random((*shape[:2], shape[2] if len(shape) > 2 else 1))
    wave = cv2.GaussianBlur(noise, (0, 0), 4).reshape(shape)
    scaled = (wave - wave.min()) / (wave.max() - wave.min()) * np.iinfo(dtype).max
    result: Pixels = scaled.astype(dtype)
    return result


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_rgb_round_trips_and_pillow_agrees(tmp_path: Path, suffix: str) -> None:
    picture, path = Picture(_smooth((20, 31, 3))), tmp_path / f"Ünïcode 名{suffix}"
    write_picture(picture, path)
    assert np.array_equal(read_picture(path).pixels, picture.pixels)
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), picture.pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_and_alpha_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = Picture(_smooth((20, 31, 3), np.uint16), _smooth((20, 31), np.uint16))
    path = tmp_path / f"deep{suffix}"
    write_picture(picture, path)
    found = read_picture(path)
    assert found.pixels.dtype == np.uint16
    assert np.array_equal(found.pixels, picture.pixels)
    assert found.alpha is not None
    assert picture.alpha is not None
    assert np.array_equal(found.alpha, picture.alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_grey_stays_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"grey{suffix}"
    write_picture(Picture(_smooth((20, 31))), path)
    assert read_picture(path).pixels.shape == (20, 31)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_lossy_formats_are_close(tmp_path: Path, suffix: str) -> None:
    picture, path = Picture(_smooth((32, 32, 3))), tmp_path / f"a{suffix}"
    write_picture(picture, path)
    difference = read_rgb(path).astype(int) - picture.pixels
    assert np.abs(difference).mean() < 2.5


def test_what_a_format_cannot_hold_is_reduced_not_lost(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), 257 * 200, np.uint16)
    alpha = np.zeros((8, 8), np.uint16)
    alpha[:, 4:] = 65535
    write_picture(Picture(pixels, alpha), tmp_path / "a.bmp")
    found = read_picture(tmp_path / "a.bmp")
    assert found.alpha is None
    assert found.pixels[0, 0].tolist() == [255] * 3  # transparent: white
    assert found.pixels[0, 7].tolist() == [200] * 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_icc_profile_is_kept(tmp_path: Path, suffix: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / f"a{suffix}"
    write_picture(Picture(_smooth((16, 16, 3)), None, profile), path)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile
    assert read_picture(path).icc == profile


def test_a_profile_of_other_pixels_is_not_carried_over(tmp_path: Path) -> None:
    """A CMYK profile describes no RGB pixels, a grey one no RGB made of grey."""
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cmyk, grey = rgb[:16] + b"CMYK" + rgb[20:], rgb[:16] + b"GRAY" + rgb[20:]
    Image.fromarray(_smooth((16, 16, 3))).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=cmyk)
    assert read_picture(tmp_path / "a.jpg").icc is None
    Image.fromarray(_smooth((16, 16))).save(tmp_path / "g.png", icc_profile=grey)
    picture = read_picture(tmp_path / "g.png")
    assert picture.icc == grey
    write_picture(picture, tmp_path / "g.webp")
    assert read_picture(tmp_path / "g.webp").icc is None


def test_a_profile_that_is_none_does_not_cost_the_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with quiet_decoders():
        write_picture(
            Picture(_smooth((16, 16, 3)), None, b"no profile at al" + b"RGB " + bytes(99)), path
        )
    assert read_picture(path).icc is None


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    Image.fromarray(_smooth((20, 31, 3))).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (31, 20, 3)


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA", "RGBA", "CMYK"])
def test_modes_of_pillow_are_read_as_pillow_shows_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(_smooth((20, 31, 3))).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    found = read_picture(path).pixels
    shown = np.asarray(Image.open(path).convert("RGB" if found.ndim == 3 else "L"))
    assert np.abs(found.astype(int) - shown).max() <= 2


def test_tiff_alpha_that_opencv_may_have_multiplied_is_refused(tmp_path: Path) -> None:
    Image.fromarray(_smooth((20, 31, 4))).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="8-bit TIFF with four channels"):
        read_picture(tmp_path / "a.tif")


def test_unreadable_files_are_named_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    with pytest.raises(ImageError, match=r"bad\.png: no such file"):
        read_picture(bad)
    bad.touch()
    with pytest.raises(ImageError, match=r"bad\.png: the file is empty"):
        read_picture(bad)
    with pytest.raises(ImageError, match="can't be read: Is a directory"):
        read_picture(tmp_path)
    bad.write_text("text")
    with pytest.raises(ImageError, match="not an image, or truncated"):
        read_picture(bad)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files_are_refused_silently(
    tmp_path: Path, suffix: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    write_picture(Picture(_smooth((64, 64, 3))), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with quiet_decoders(), pytest.raises(ImageError, match="truncated"):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_deep_files_are_refused_where_eight_bits_are_needed(tmp_path: Path) -> None:
    write_picture(Picture(_smooth((8, 8, 3), np.uint16)), tmp_path / "a.png")
    with pytest.raises(ImageError, match="16 bits per channel, expected 8"):
        read_rgb(tmp_path / "a.png")


def test_unknown_formats_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"can't write \.xyz; expected one of \.png"):
        write_picture(Picture(_smooth((4, 4, 3))), tmp_path / "a.xyz")
    assert all(cv2.haveImageWriter(f"a{suffix}") for suffix in WRITABLE)


def test_a_failed_write_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")

    monkeypatch.setattr(Path, "write_bytes", disk_full_half_way)
    with pytest.raises(ImageError, match="No space left on device"):
        write_picture(Picture(_smooth((4, 4, 3))), path)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_new_files_have_ordinary_permissions_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    write_picture(Picture(_smooth((4, 4, 3))), path)
    (tmp_path / "plain").touch()
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == expected


def test_too_large_for_the_format_is_an_error(tmp_path: Path) -> None:
    wide: NDArray[np.uint8] = np.zeros((1, 17000, 3), np.uint8)  # WebP ends at 16383
    with quiet_decoders(), pytest.raises(ImageError, match="can't encode uint8"):
        write_picture(Picture(wide), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []
