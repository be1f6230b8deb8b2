"""Files of formats that need an extra, or are not supported, and the messages about them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import PHOTO, ROOT
from PIL import ExifTags, Image, ImageCms

from agsr.errors import ImageError, MissingDependencyError
from agsr.image.decode import decode
from agsr.image.formats.signatures import is_heif


def _heic(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95, chroma=444, **options)
    return stream.getvalue()


def test_heic_of_several_pictures_comes_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    file, stream = pillow_heif.from_pillow(Image.new("RGB", (16, 16))), io.BytesIO()
    file.add_from_pillow(Image.new("RGB", (16, 16), "white"))
    file.save(stream)
    assert decode(stream.getvalue(), "a.heic").pixels.max() < 9
    assert caplog.messages == ["a.heic: holds 2 pictures; only the first is used"]


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_heic_is_read_upright_with_profile_and_exif(orientation: int) -> None:
    photo = Image.open(PHOTO).convert("RGB").crop((20, 10, 60, 34))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = orientation, "Maker"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = _heic(photo, exif=exif.tobytes(), icc_profile=srgb)
    picture = decode(content, "a.heic")
    turns = {1: photo, 6: photo.transpose(Image.Transpose.ROTATE_270)}
    turns[3] = photo.transpose(Image.Transpose.ROTATE_180)
    expected = np.asarray(turns[orientation]).astype(int)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 4
    assert picture.metadata.icc == srgb
    assert picture.metadata.exif is not None
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert (kept.get(ExifTags.Base.Orientation, 1), kept[ExifTags.Base.Make]) == (1, "Maker")


def test_alpha_of_heic_is_kept() -> None:
    image = Image.open(PHOTO).convert("RGB").crop((0, 0, 32, 32))
    image.putalpha(Image.linear_gradient("L").resize((32, 32)))
    alpha = decode(_heic(image), "a.heic").alpha
    assert alpha is not None
    assert np.abs(alpha.astype(int) - np.asarray(image)[..., 3]).max() <= 4


def test_ten_bits_are_read() -> None:
    samples = np.arange(48 * 32 * 3, dtype=np.uint16) * 14
    deep = pillow_heif.from_bytes("RGB;16", (48, 32), samples.tobytes())
    stream = io.BytesIO()
    deep.save(stream, quality=90, bit_depth=10)
    pixels = decode(stream.getvalue(), "a.hif").pixels
    assert pixels.dtype == np.uint16
    assert len(np.unique(pixels)) > 256
    expected = samples.reshape(32, 48, 3).astype(int)
    assert np.abs(pixels.astype(int) - expected).mean() < 300


def test_reading_heic_leaves_pillow_alone() -> None:
    """A library must not teach its caller's Pillow new formats."""
    code = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "from agsr.image.decode import decode\n"
        "assert decode(Path(sys.argv[1]).read_bytes(), 'a.heic').pixels.size\n"
        "Image.init(); assert not {'HEIF', '.heic'} & {*Image.OPEN, *Image.registered_extensions()}"
    )
    sample = ROOT / "tests/stills/heic-p3.heic"
    subprocess.run([sys.executable, "-c", code, str(sample)], check=True)


def test_a_truncated_or_too_large_heic_is_rejected() -> None:
    content = _heic(Image.open(PHOTO).convert("RGB"))
    with pytest.raises(ImageError, match=r"a\.heic: damaged or truncated"):
        decode(content[: len(content) // 2], "a.heic")
    with pytest.raises(ImageError, match=r"128x128 is 16384 pixels, more than 100"):
        decode(content, "a.heic", max_pixels=100)


def test_without_the_extra_its_command_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _heic(Image.new("RGB", (32, 32)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingDependencyError, match=r"a\.heic: reading HEIC needs .*agsr\[heif\]"):
        decode(content, "a.heic")


def test_avif_is_no_heic() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "AVIF")
    assert not is_heif(stream.getvalue())
    assert is_heif(b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic")
    assert not is_heif(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif")


@pytest.mark.parametrize(
    ("name", "content", "reported"),
    [
        ("a.pdf", b"%PDF-1.7", "a PDF; pdftoppm"),
        (
            "a.svg",
            b"<?xml version='1.0'?>\n<svg width='9'>",
            "an SVG drawing, .* rsvg-convert -z 4",
        ),
        ("a.jxl", b"\xff\x0a\x00", "JPEG XL; djxl"),
        ("a.jxl", b"\0\0\0\x0cJXL \r\n", "JPEG XL; djxl"),
        ("a.psd", b"8BPS\0\1", "a Photoshop file; export it"),
        ("a.cr3", b"\0\0\0\x18ftypcrx ", "a camera's raw file; develop it"),
        ("a.exr", b"v/1\x01\x02", "OpenEXR"),
        ("a.ppm", b"P3\n2 2\n255\n", r"a portable map \(PBM, PGM, PPM\); magick"),
        ("a.pam", b"P7\nWIDTH 2\n", r"a portable map \(PAM\); magick"),
        ("a.pfm", b"PF\n2 2\n-1.0\n", "a portable float map; tone-map it"),
        ("a.pcx", b"\x0a\x05\x01\x08", "PCX; magick"),
        ("a.sgi", b"\x01\xda\x01\x01", "an SGI picture; magick"),
        ("a.xpm", b"/* XPM */\n", r"an X pixmap \(XPM\); magick"),
        ("a.png", b"hello", "not an image, or truncated"),
    ],
)
def test_what_is_not_read_is_named_with_the_way_to_convert_it(
    name: str, content: bytes, reported: str
) -> None:
    with pytest.raises(ImageError, match=f"^{name}: {reported}"):
        decode(content + bytes(64), name)


def test_the_preview_in_a_raw_file_is_not_taken_for_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "photo.NEF"
    Image.new("RGB", (16, 12)).save(path, "TIFF")
    with pytest.raises(ImageError, match="a camera's raw file"):
        decode(path.read_bytes(), str(path))
