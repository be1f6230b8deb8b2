"""Files that tell much of their pictures, or little of it right: each is read as it is meant."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from image_corpus import png
from PIL import Image, ImageCms
from stills import STILLS, chunks_of, content_of, read_still, write_upscaled

from agsr.datasets.pairs import IMAGE_SUFFIXES
from agsr.errors import ImageError
from agsr.image.decode import READABLE, decode
from agsr.image.encode import FORMATS


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("png8-cicp-p3.png", b"cICP", bytes([12, 13, 0, 1])),
        ("png8-cicp-pq.png", b"cICP", bytes([9, 16, 0, 1])),
        ("avif-p3.avif", b"cICP", bytes([12, 13, 0, 1])),
        ("avif-pq10.avif", b"cICP", bytes([9, 16, 0, 1])),
        ("heic-p3.heic", b"cICP", bytes([12, 13, 0, 1])),
        ("png8-gamma1.png", b"gAMA", struct.pack(">I", 100_000)),
        (
            "png8-chrm-p3.png",
            b"cHRM",
            struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
        ),
    ],
)
def test_colours_without_a_profile_stay_in_png(name: str, kind: bytes, data: bytes) -> None:
    assert dict(chunks_of(write_upscaled(read_still(name), ".png")))[kind] == data


def test_the_rendering_intent_of_srgb_stays_in_png() -> None:
    declared = (b"sRGB", b"\1"), (b"gAMA", struct.pack(">I", 45455))
    chunks = dict(chunks_of(write_upscaled(decode(png(2, 8, False, *declared), "a.png"), ".png")))
    assert chunks[b"sRGB"] == b"\1"
    assert b"iCCP" not in chunks  # which would contradict it


@pytest.mark.parametrize("name", ["png8-cicp-p3.png", "avif-p3.avif", "png8-chrm-p3.png"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_colours_without_a_profile_get_one(name: str, suffix: str) -> None:
    """By littleCMS, pure red of Display P3 lies where its standard puts it."""
    with Image.open(io.BytesIO(write_upscaled(read_still(name), suffix))) as image:
        icc = image.info["icc_profile"]
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
    assert profile.red_primary[0] == pytest.approx((0.5151, 0.2412, -0.0011), abs=2e-4)
    assert profile.green_primary[0] == pytest.approx((0.2919, 0.6922, 0.0419), abs=2e-4)


def test_linear_light_gets_a_linear_profile() -> None:
    with Image.open(io.BytesIO(write_upscaled(read_still("png8-gamma1.png"), ".tif"))) as image:
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    grey = Image.new("RGB", (1, 1), (128, 128, 128))
    shown = ImageCms.profileToProfile(grey, source, ImageCms.createProfile("sRGB"))
    assert shown.getpixel((0, 0)) == (188, 188, 188)


@pytest.mark.parametrize(
    ("name", "codes"), [("avif-p3.avif", (12, 13)), ("avif-pq10.avif", (9, 16))]
)
def test_code_points_stay_in_avif(name: str, codes: tuple[int, int]) -> None:
    written = write_upscaled(read_still(name), ".avif")
    place = written.index(b"nclx") + 4
    assert struct.unpack_from(">HH", written, place) == codes


def test_colours_that_do_not_fit_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    write_upscaled(read_still("png8-cicp-pq.png"), ".jpg")
    assert caplog.messages == ["b.jpg: JPEG can't hold its colour description (PQ)"]


@pytest.mark.parametrize("name", ["avif-pq10.avif"])
def test_ten_bits_of_avif_are_read(name: str) -> None:
    pixels = read_still(name).pixels
    assert pixels.dtype == np.uint16
    assert len(np.unique(pixels)) > 256
    eight = np.asarray(Image.open(io.BytesIO(content_of(name))).convert("RGB")).astype(int)
    assert np.abs(pixels // 257 - eight).max() <= 2


def test_samples_significant_bits_do_not_survive_enlarging() -> None:
    content = png(2, 8, False, (b"sBIT", b"\x05\x06\x05"))
    assert b"sBIT" not in dict(chunks_of(write_upscaled(decode(content, "a.png"), ".png")))


def _xmp_by_pillow(image: Image.Image) -> bytes:
    found = image.info.get("xmp") or getattr(image, "tag_v2", {}).get(700) or b""
    return found if isinstance(found, bytes) else str(found).encode()


@pytest.mark.parametrize(
    ("name", "lost", "gone"),
    [
        ("ultrahdr.jpg", "gain map", (b"hdrgm:Version", b"GainMap")),
        ("motion.jpg", "video", (b"MotionPhoto=", b"MicroVideo=", b"video/mp4")),
    ],
)
def test_xmp_of_what_stays_behind_is_removed(
    name: str, lost: str, gone: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    assert all(word in content_of(name) for word in gone[:2])
    picture = read_still(name)
    assert caplog.messages == [f"{name}: the result lacks its {lost}"]
    for suffix in (".jpg", ".png", ".webp", ".tif"):  # where packets are not compressed
        written = write_upscaled(picture, suffix)
        assert not any(word in written for word in gone)
        with Image.open(io.BytesIO(written)) as image:
            assert b"x:xmpmeta" in _xmp_by_pillow(image)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xmpsize.jpg", (b'PixelXDimension="256"', b'tiff:ImageLength="192"')),
        ("pano.jpg", (b'FullPanoWidthPixels="384"', b'CroppedAreaImageHeightPixels="192"')),
    ],
)
def test_sizes_in_xmp_are_those_of_the_result(name: str, expected: tuple[bytes, ...]) -> None:
    for suffix in (".png", ".jpg", ".webp"):
        with Image.open(io.BytesIO(write_upscaled(read_still(name), suffix))) as image:
            xmp = _xmp_by_pillow(image)
        assert all(word in xmp for word in expected)
        assert b'="64"' not in xmp
        assert b'="96"' not in xmp


@pytest.mark.parametrize("per_metre", [(1 << 32) - 1, 3_000_000, 2_600_000])
def test_a_resolution_that_jpeg_cannot_hold_costs_the_resolution(
    per_metre: int, caplog: pytest.LogCaptureFixture
) -> None:
    density = struct.pack(">IIB", per_metre, per_metre, 1)
    picture = decode(png(2, 8, False, (b"pHYs", density)), "a.png")
    with Image.open(io.BytesIO(write_upscaled(picture, ".jpg"))) as image:
        assert image.info.get("dpi", (0, 0))[0] < 100
    usable = per_metre * 0.0254 < 1e5
    assert (picture.metadata.dpi is not None) == usable
    assert ("b.jpg: JPEG can't hold its resolution" in caplog.text) == usable
    assert write_upscaled(picture, ".png")


def test_generation_parameters_reach_every_format_with_exif() -> None:
    picture = read_still("png8-params.png")
    assert [text.keyword for text in picture.metadata.text] == ["parameters", "prompt"]
    with Image.open(io.BytesIO(write_upscaled(picture, ".png"))) as image:
        assert image.text["parameters"].startswith("a tree")
    for suffix in (".jpg", ".webp", ".avif", ".tif"):
        with Image.open(io.BytesIO(write_upscaled(picture, suffix))) as image:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert comment.startswith(b"ASCII\0\0\0a tree with a bird")


def test_iptc_is_read_by_others() -> None:
    picture = read_still("jpg-iptc.jpg")
    expected = Image.open(io.BytesIO(content_of("jpg-iptc.jpg"))).info["photoshop"][1028]
    with Image.open(io.BytesIO(write_upscaled(picture, ".jpg"))) as image:
        assert image.info["photoshop"][1028] == expected
    with tifffile.TiffFile(io.BytesIO(write_upscaled(picture, ".tif"))) as file:
        assert bytes(file.pages[0].tags[33723].value) == expected
    found = pyvips.Image.new_from_buffer(write_upscaled(picture, ".png"), "")
    assert "iptc" in str(found.get_fields())


def test_comments_and_aspects_are_read_by_others() -> None:
    with Image.open(io.BytesIO(write_upscaled(read_still("jpg-comment.jpg"), ".jpg"))) as image:
        assert image.info["comment"] == b"my comment"
    for name in ("jpg-aspect.jpg", "png8-aspect.png"):
        with Image.open(io.BytesIO(write_upscaled(read_still(name), ".jpg"))) as image:
            assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (16, 15))
        with Image.open(io.BytesIO(write_upscaled(read_still(name), ".png"))) as image:
            assert image.info["aspect"] == (16, 15)


def test_a_jpeg_without_its_end_is_read(caplog: pytest.LogCaptureFixture) -> None:
    picture = read_still("jpg-noeoi.jpg")
    whole = Image.open(io.BytesIO(content_of("jpg-noeoi.jpg") + b"\xff\xd9"))
    assert np.array_equal(picture.pixels, np.asarray(whole))
    assert caplog.messages == ["jpg-noeoi.jpg: the end marker is missing; all pixels are present"]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": "4:2:0"}]
)
def test_a_jpeg_without_some_pixels_is_rejected(options: dict[str, Any]) -> None:
    random = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(random).save(stream, "JPEG", **options)
    whole = stream.getvalue()
    assert decode(whole[:-2], "a.jpg").pixels.shape == (48, 64, 3)
    for missing in (30, 100, 400, len(whole) // 2):
        with pytest.raises(ImageError, match="damaged or truncated"):
            decode(whole[:-missing], "a.jpg")


def test_every_ending_of_jpeg_is_known_everywhere() -> None:
    endings = {suffix for suffix, form in FORMATS.items() if form.name == "JPEG"}
    assert endings == {".jpg", ".jpeg", ".jpe", ".jfif"}
    assert endings <= READABLE & IMAGE_SUFFIXES  # folders of infer, and of eval and train
    assert read_still("photo.jfif").pixels.shape == (48, 64, 3)


def test_rare_decoders_are_loaded_for_rare_files_only() -> None:
    code = (
        "import sys; from pathlib import Path; from agsr.image import read_picture\n"
        "read_picture(sys.argv[1]); assert not {'tifffile', 'pillow_heif', 'cv2'} & {*sys.modules}"
    )
    for name in ("photo.jfif", "tiff-thumb-first.tif", "png8-cicp-p3.png"):
        subprocess.run([sys.executable, "-c", code, str(STILLS / name)], check=True)
