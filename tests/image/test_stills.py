"""Files that tell much of their pictures, or little of it right: each is read as it is meant."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from conftest import ROOT
from image_corpus import png
from PIL import Image, ImageCms

from agsr.datasets.pairs import IMAGE_SUFFIXES
from agsr.errors import ImageError
from agsr.image.decode import READABLE, decode
from agsr.image.encode import FORMATS, encode
from agsr.image.metadata.exif import parse_exif
from agsr.image.picture import Picture

STILLS = ROOT / "tests/stills"


def _content(name: str) -> bytes:
    return (STILLS / name).read_bytes()


def _read(name: str) -> Picture:
    return decode(_content(name), name)


def _written(picture: Picture, suffix: str) -> bytes:
    height, width = (side * 4 for side in picture.pixels.shape[:2])
    large = picture.pixels.repeat(4, axis=0).repeat(4, axis=1)
    assert large.shape[:2] == (height, width)
    return encode(Picture(large, None, picture.metadata), suffix, f"b{suffix}")


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, content[place + 8 : place + 8 + length]
        place += 12 + length


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
    assert dict(_chunks(_written(_read(name), ".png")))[kind] == data


@pytest.mark.parametrize("name", ["png8-cicp-p3.png", "avif-p3.avif", "png8-chrm-p3.png"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_colours_without_a_profile_get_one(name: str, suffix: str) -> None:
    """By littleCMS, pure red of Display P3 lies where its standard puts it."""
    with Image.open(io.BytesIO(_written(_read(name), suffix))) as image:
        icc = image.info["icc_profile"]
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
    assert profile.red_primary[0] == pytest.approx((0.5151, 0.2412, -0.0011), abs=2e-4)
    assert profile.green_primary[0] == pytest.approx((0.2919, 0.6922, 0.0419), abs=2e-4)


def test_linear_light_gets_a_linear_profile() -> None:
    with Image.open(io.BytesIO(_written(_read("png8-gamma1.png"), ".tif"))) as image:
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    grey = Image.new("RGB", (1, 1), (128, 128, 128))
    shown = ImageCms.profileToProfile(grey, source, ImageCms.createProfile("sRGB"))
    assert shown.getpixel((0, 0)) == (188, 188, 188)


@pytest.mark.parametrize(
    ("name", "codes"), [("avif-p3.avif", (12, 13)), ("avif-pq10.avif", (9, 16))]
)
def test_code_points_stay_in_avif(name: str, codes: tuple[int, int]) -> None:
    written = _written(_read(name), ".avif")
    place = written.index(b"nclx") + 4
    assert struct.unpack_from(">HH", written, place) == codes


def test_colours_that_do_not_fit_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    _written(_read("png8-cicp-pq.png"), ".jpg")
    assert caplog.messages == ["b.jpg: JPEG can't hold its colour description (PQ)"]


@pytest.mark.parametrize("name", ["avif-pq10.avif"])
def test_ten_bits_of_avif_are_read(name: str) -> None:
    pixels = _read(name).pixels
    assert pixels.dtype == np.uint16
    assert len(np.unique(pixels)) > 256
    eight = np.asarray(Image.open(io.BytesIO(_content(name))).convert("RGB")).astype(int)
    assert np.abs(pixels // 257 - eight).max() <= 2


def test_samples_significant_bits_do_not_survive_enlarging() -> None:
    content = png(2, 8, False, (b"sBIT", b"\x05\x06\x05"))
    assert b"sBIT" not in dict(_chunks(_written(decode(content, "a.png"), ".png")))


@pytest.mark.parametrize("suffix", [s for s in FORMATS if FORMATS[s].profile])
def test_text_of_exif_stays_byte_for_byte(suffix: str) -> None:
    written = _written(_read("exif-text-utf8.jpg"), suffix)
    assert "Jörg é\0".encode() in written or "Jörg é".encode() in written


def test_odd_tags_cost_neither_orientation_nor_the_others() -> None:
    picture = _read("exif-width-rational.jpg")
    assert picture.pixels.shape == (64, 48, 3)
    block = parse_exif(decode(_written(picture, ".jpg"), "b").metadata.exif or b"")
    assert 256 not in block.main  # the width it named is no longer true
    assert block.details[0xA002].numbers(block.order) == (192,)


def test_a_block_that_is_cut_keeps_its_orientation(caplog: pytest.LogCaptureFixture) -> None:
    picture = _read("exif-orientation-lost.jpg")
    assert picture.pixels.shape == (64, 48, 3)
    assert b"Canon" in (picture.metadata.exif or b"")
    assert "its EXIF data is damaged; 7 tags are lost" in caplog.text


def test_a_maker_note_stays_where_it_is() -> None:
    """Some cameras count places inside of it from the beginning of the block."""
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = b"note" * 20
    stream = io.BytesIO()
    Image.new("RGB", (16, 12)).save(stream, "JPEG", exif=exif)
    before = exif.tobytes()
    kept = decode(stream.getvalue(), "a.jpg").metadata.for_size(48, 64).exif
    assert kept is not None
    assert kept.index(b"notenote") == before.index(b"notenote")


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
    xmp = _read(name).metadata.xmp
    assert xmp is not None
    assert not any(word in xmp for word in gone)
    assert caplog.messages == [f"{name}: the result lacks its {lost}"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xmpsize.jpg", (b'PixelXDimension="256"', b'tiff:ImageLength="192"')),
        ("pano.jpg", (b'FullPanoWidthPixels="384"', b'CroppedAreaImageHeightPixels="192"')),
    ],
)
def test_sizes_in_xmp_are_those_of_the_result(name: str, expected: tuple[bytes, ...]) -> None:
    written = _written(_read(name), ".png")
    assert all(word in written for word in expected)
    assert b'="64"' not in written
    assert b'="96"' not in written


@pytest.mark.parametrize("name", ["png8-badcrc-idat.png", "png16-badcrc-idat.png"])
def test_pixels_with_a_wrong_checksum_are_rejected_in_any_depth(name: str) -> None:
    with pytest.raises(ImageError, match="damaged: its chunk IDAT has a wrong checksum"):
        _read(name)


@pytest.mark.parametrize(("name", "chunk"), [("iccp", "iCCP"), ("phys", "pHYs")])
@pytest.mark.parametrize("depth", [8, 16])
def test_what_pixels_do_not_need_may_be_damaged(
    name: str, chunk: str, depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = _content(f"png8-badcrc-{name}.png")
    if depth == 16:
        spoilt = bytearray(png(2, 16, False, (chunk.encode(), b"data")))
        spoilt[spoilt.index(chunk.encode()) + 8] ^= 1
        content = bytes(spoilt)
    assert decode(content, "a.png").pixels.dtype.itemsize * 8 == depth
    assert caplog.messages == [f"a.png: its chunk {chunk} has a wrong checksum and is ignored"]


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("chunk", ["IEND", "tEXt"])
def test_what_pixels_do_not_need_may_be_cut_off(
    chunk: str, cut: int, depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = png(2, depth, False)
    text = b"\0\0\0\3tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    content = whole[:-cut] if chunk == "IEND" else (whole[:-12] + text)[:-cut]
    found = decode(content, "a.png").pixels
    assert np.array_equal(found, decode(whole, "a.png").pixels)
    assert caplog.messages == [f"a.png: its chunk {chunk} is cut off and is ignored"]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_wrong_checksum_of_the_end_costs_nothing(
    depth: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = png(2, depth, False)
    found = decode(whole[:-1] + b"\0", "a.png").pixels
    assert np.array_equal(found, decode(whole, "a.png").pixels)
    assert caplog.messages == ["a.png: its chunk IEND has a wrong checksum and is ignored"]


_PNG_KINDS = [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 2), (3, 8), (4, 16), (6, 8), (6, 16)]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), _PNG_KINDS)
def test_a_missing_end_costs_a_warning_in_any_depth(
    kind: int, depth: int, interlaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of its twelve bytes any may be missing, and so may all."""
    whole = png(kind, depth, interlaced)
    expected = decode(whole, "a.png").pixels
    for cut in range(1, 13):
        assert np.array_equal(decode(whole[:-cut], "a.png").pixels, expected)
    assert caplog.messages == ["a.png: its chunk IEND is cut off and is ignored"] * 12


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), _PNG_KINDS)
def test_a_file_cut_within_its_pixels_is_rejected_in_any_depth(
    kind: int, depth: int, interlaced: bool
) -> None:
    """The last four bytes of pixels are their checksum."""
    for cut in (13, 16, 17, 24):
        with pytest.raises(ImageError, match="truncated: its chunk IDAT"):
            decode(png(kind, depth, interlaced)[:-cut], "a.png")


@pytest.mark.parametrize("name", ["png8-itxt2MB.png", "png8-ztxt2MB.png", "png8-iccp2MB.png"])
def test_long_texts_and_profiles_are_read(name: str) -> None:
    picture = _read(name)
    assert decode(_written(picture, ".png"), "b.png").metadata.text == picture.metadata.text
    assert len(picture.metadata.icc or b"") + sum(len(t.text) for t in picture.metadata.text) > 2e6


def test_a_bomb_of_text_costs_the_text(caplog: pytest.LogCaptureFixture) -> None:
    bomb = b"a\0\0" + zlib.compress(bytes(1 << 27), 9)
    picture = decode(png(2, 8, False, (b"zTXt", bomb), (b"tEXt", b"b\0c")), "a.png")
    assert [text.text for text in picture.metadata.text] == ["c"]
    assert "a.png: with its chunk zTXt, text and profile exceed 64 MB" in caplog.text


@pytest.mark.parametrize("end", [b"", b"damaged"])
def test_many_bombs_of_text_cost_no_more_than_one(
    end: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unpacked, unpacker_of = list[int](), zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self._inner = unpacker_of()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def decompress(self, data: bytes, most: int) -> bytes:
            unpacked.append(most)
            return self._inner.decompress(data, most)

    monkeypatch.setattr(zlib, "decompressobj", Counted)
    monkeypatch.setattr("agsr.image.formats.png_chunks._MOST_TEXT", 1 << 21)
    packed = zlib.compress(bytes(1 << 22 if not end else 1 << 20), 9)
    bomb = b"a\0\0" + (packed[:-4] + b"none" if end else packed)
    decode(png(2, 8, False, *[(b"zTXt", bomb)] * 20), "a.png")
    assert sum(unpacked) <= (1 << 21) + (1 << 20)
    assert caplog.text.count("text and profile exceed") == 1


@pytest.mark.parametrize("per_metre", [(1 << 32) - 1, 3_000_000, 2_600_000])
def test_a_resolution_that_jpeg_cannot_hold_costs_the_resolution(
    per_metre: int, caplog: pytest.LogCaptureFixture
) -> None:
    density = struct.pack(">IIB", per_metre, per_metre, 1)
    picture = decode(png(2, 8, False, (b"pHYs", density)), "a.png")
    with Image.open(io.BytesIO(_written(picture, ".jpg"))) as image:
        assert image.info.get("dpi", (0, 0))[0] < 100
    usable = per_metre * 0.0254 < 1e5
    assert (picture.metadata.dpi is not None) == usable
    assert ("b.jpg: JPEG can't hold its resolution" in caplog.text) == usable
    assert _written(picture, ".png")


def test_generation_parameters_reach_every_format_with_exif() -> None:
    picture = _read("png8-params.png")
    assert [text.keyword for text in picture.metadata.text] == ["parameters", "prompt"]
    with Image.open(io.BytesIO(_written(picture, ".png"))) as image:
        assert image.text["parameters"].startswith("a tree")
    for suffix in (".jpg", ".webp", ".avif", ".tif"):
        with Image.open(io.BytesIO(_written(picture, suffix))) as image:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert comment.startswith(b"ASCII\0\0\0a tree with a bird")


def test_iptc_is_read_by_others() -> None:
    picture = _read("jpg-iptc.jpg")
    expected = Image.open(io.BytesIO(_content("jpg-iptc.jpg"))).info["photoshop"][1028]
    with Image.open(io.BytesIO(_written(picture, ".jpg"))) as image:
        assert image.info["photoshop"][1028] == expected
    with tifffile.TiffFile(io.BytesIO(_written(picture, ".tif"))) as file:
        assert bytes(file.pages[0].tags[33723].value) == expected
    found = pyvips.Image.new_from_buffer(_written(picture, ".png"), "")
    assert "iptc" in str(found.get_fields())


def test_comments_and_aspects_are_read_by_others() -> None:
    with Image.open(io.BytesIO(_written(_read("jpg-comment.jpg"), ".jpg"))) as image:
        assert image.info["comment"] == b"my comment"
    for name in ("jpg-aspect.jpg", "png8-aspect.png"):
        with Image.open(io.BytesIO(_written(_read(name), ".jpg"))) as image:
            assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (16, 15))
        with Image.open(io.BytesIO(_written(_read(name), ".png"))) as image:
            assert image.info["aspect"] == (16, 15)


def test_a_thumbnail_in_front_is_not_taken_for_the_picture(
    caplog: pytest.LogCaptureFixture,
) -> None:
    picture = _read("tiff-thumb-first.tif")
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
    difference = np.abs(_read(name).pixels.astype(int) - found[..., :3])
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
    picture = _read("tiff-cmyka.tif")
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


def test_a_jpeg_without_its_end_is_read(caplog: pytest.LogCaptureFixture) -> None:
    picture = _read("jpg-noeoi.jpg")
    whole = Image.open(io.BytesIO(_content("jpg-noeoi.jpg") + b"\xff\xd9"))
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
    assert _read("photo.jfif").pixels.shape == (48, 64, 3)


def test_rare_decoders_are_loaded_for_rare_files_only() -> None:
    code = (
        "import sys; from pathlib import Path; from agsr.image import read_picture\n"
        "read_picture(sys.argv[1]); assert not {'tifffile', 'pillow_heif', 'cv2'} & {*sys.modules}"
    )
    for name in ("photo.jfif", "tiff-thumb-first.tif", "png8-cicp-p3.png"):
        subprocess.run([sys.executable, "-c", code, str(STILLS / name)], check=True)
