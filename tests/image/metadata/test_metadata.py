"""What files say about their pictures, checked with Pillow and tifffile as independent readers."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps
from PIL.ExifTags import IFD, Base
from tagged_files import GREY, MARKED, SRGB, TARGETS, UPRIGHT_XMP, XMP, make_exif, tagged_file

from agsr.image.decode import decode
from agsr.image.encode import encode
from agsr.image.metadata import Metadata
from agsr.image.picture import Picture


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", TARGETS)
def test_everything_survives_from_every_format_to_every_other(
    source: str, target: str, deep: bool
) -> None:
    picture = decode(tagged_file(source), "a")
    if deep:
        picture = Picture(picture.pixels.astype(np.uint16) * 257, None, picture.metadata)
    written = encode(picture, target, "b")
    with Image.open(io.BytesIO(written)) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.info["xmp"].strip(b"\0") == UPRIGHT_XMP
        exif = image.getexif()
        assert exif.get(Base.Orientation, 1) == 1
        assert exif[Base.Make] == "Maker"
        details = exif.get_ifd(IFD.Exif)
        assert details[Base.DateTimeOriginal] == "2020:01:02 03:04:05"
        assert (details[Base.ExifImageWidth], details[Base.ExifImageHeight]) == (20, 30)
        assert exif.get_ifd(IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert image.size == (20, 30)  # turned
        turned = pytest.approx((120, 240), rel=1e-3)
        if source in (".png", ".tif", ".jpg"):  # Pillow tells WebP and AVIF no resolution
            reported = (exif.get(Base.XResolution), exif.get(Base.YResolution))
            assert (reported if target in (".webp", ".avif") else image.info["dpi"]) == turned
            assert decode(written, "b").metadata.dpi == turned
    assert decode(written, "b").metadata.exif is not None


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_resolution_in_exif_alone_is_read(suffix: str) -> None:
    exif = Image.Exif()
    exif[Base.XResolution], exif[Base.YResolution], exif[Base.ResolutionUnit] = 100.0, 50.0, 3
    stream = io.BytesIO()
    Image.fromarray(MARKED).save(stream, Image.registered_extensions()[suffix], exif=exif)
    assert decode(stream.getvalue(), "a").metadata.dpi == pytest.approx((254, 127))
    bare = encode(Picture(MARKED, None, Metadata(dpi=(300, 150))), suffix, "a")
    assert decode(bare, "a").metadata.dpi == pytest.approx((300, 150))


def test_a_tiff_that_tells_no_resolution_has_none() -> None:
    bare, without_unit = io.BytesIO(), io.BytesIO()
    Image.fromarray(MARKED).save(bare, "TIFF")
    tifffile.imwrite(without_unit, MARKED.astype(np.uint16), photometric="rgb")
    for stream in (bare, without_unit):
        assert decode(stream.getvalue(), "a").metadata.dpi is None


@pytest.mark.parametrize("source", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(
    "layout", [{266: 2}, {322: 256, 323: 256}, {338: 1}, {347: b"x"}, {513: 100, 514: 5}]
)
def test_tags_of_another_layout_do_not_spoil_a_tiff(source: str, layout: dict[int, Any]) -> None:
    exif = make_exif(1)
    for tag, value in layout.items():
        exif[tag] = value
    picture = decode(tagged_file(source, exif), "a")
    written = encode(picture, ".tif", "b")
    assert np.array_equal(decode(written, "b").pixels, picture.pixels)
    with Image.open(io.BytesIO(written)) as image:
        assert not set(layout) & set(image.getexif())
        assert image.getexif()[Base.Make] == "Maker"


@pytest.mark.parametrize("suffix", TARGETS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_applies_it(suffix: str, orientation: int) -> None:
    content = tagged_file(suffix, make_exif(orientation))
    with Image.open(io.BytesIO(content)) as image:
        shown = ImageOps.exif_transpose(image)
        assert np.array_equal(decode(content, "a").pixels, np.asarray(shown.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_files_is_applied(orientation: int, tmp_path: Path) -> None:
    """16-bit files take another decoder; their pictures must lie as their 8-bit twins do."""
    deep = MARKED.astype(np.uint16) * 257
    upright = decode(tagged_file(".png", make_exif(orientation)), "a").pixels
    tifffile.imwrite(
        tmp_path / "a.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )
    png = encode(Picture(deep, None, Metadata(exif=make_exif(orientation).tobytes())), ".png", "a")
    for content in (png, (tmp_path / "a.tif").read_bytes()):
        found = decode(content, "a").pixels
        assert found.dtype == np.uint16
        assert np.array_equal(found, upright.astype(np.uint16) * 257)


def test_orientation_in_xmp_alone_is_applied_and_reset() -> None:
    picture = decode(encode(Picture(MARKED, None, Metadata(xmp=XMP)), ".png", "a"), "a")
    assert picture.pixels.shape == (30, 20, 3)
    assert picture.metadata == Metadata(xmp=UPRIGHT_XMP)


def test_the_thumbnail_is_dropped() -> None:
    with_thumbnail = make_exif().tobytes()
    thumbnail = b"\xff\xd8" + bytes(60) + b"\xff\xd9"
    end = 6 + 8 + 2 + 12 * int.from_bytes(with_thumbnail[14:16], "big")  # of the first directory
    at = len(with_thumbnail) - 6
    entries = struct.pack(">HHHLLHHLLL", 2, 0x201, 4, 1, at + 30, 0x202, 4, 1, len(thumbnail), 0)
    linked = with_thumbnail[:end] + struct.pack(">L", at) + with_thumbnail[end + 4 :]
    stream = io.BytesIO()
    Image.fromarray(MARKED).save(stream, "JPEG", exif=linked + entries + thumbnail)
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        assert 0x0201 in image.getexif().get_ifd(IFD.IFD1)  # it is there to be left out
    exif = decode(stream.getvalue(), "a").metadata.exif
    assert exif is not None
    assert thumbnail not in exif


def test_stripping_keeps_the_profile_only() -> None:
    metadata = decode(tagged_file(".jpg"), "a").metadata.stripped()
    assert metadata == Metadata(icc=SRGB)


def test_a_profile_of_other_pixels_is_not_carried_over(caplog: pytest.LogCaptureFixture) -> None:
    """A grey profile describes no RGB made of grey, an RGB one no grey."""
    grey = Picture(MARKED[..., 0].copy(), None, Metadata(icc=GREY))
    assert decode(encode(grey, ".png", "a"), "a").metadata.icc == GREY
    assert decode(encode(grey, ".webp", "a"), "a").metadata.icc is None
    stream = io.BytesIO()
    Image.fromarray(MARKED[..., 0]).save(stream, "PNG", icc_profile=SRGB)
    assert decode(stream.getvalue(), "a.png").metadata.icc is None
    assert "a.png: its ICC profile is for RGB and is dropped" in caplog.text


def test_a_damaged_profile_costs_the_profile_only(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.BytesIO()
    Image.fromarray(MARKED).save(stream, "PNG", icc_profile=b"no profile at all")
    picture = decode(stream.getvalue(), "a.png")
    assert picture.metadata.icc is None
    assert np.array_equal(picture.pixels, MARKED)
    assert "a.png: its ICC profile is damaged" in caplog.text


def test_what_is_too_long_for_jpeg_is_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metadata = Metadata(xmp=XMP + b" " * 70_000)
    written = encode(Picture(MARKED, None, metadata), ".jpg", "a.jpg")
    assert decode(written, "a").metadata.xmp is None
    assert "a.jpg: JPEG can't hold its XMP of 70073 bytes" in caplog.text
    assert decode(encode(Picture(MARKED, None, metadata), ".png", "a"), "a").metadata.xmp


def test_tags_of_a_tiff_that_describe_its_old_pixels_are_dropped(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        MARKED,
        photometric="rgb",
        rowsperstrip=4,
        extratags=[(33550, 12, 3, (1.0, 1.0, 0.0), True)],  # GeoTIFF's size of a pixel
    )
    picture = decode((tmp_path / "a.tif").read_bytes(), "a")
    (tmp_path / "b.tif").write_bytes(encode(picture, ".tif", "b"))
    with tifffile.TiffFile(tmp_path / "b.tif") as written:
        assert 33550 not in written.pages[0].tags
        assert np.array_equal(written.asarray(), MARKED)
