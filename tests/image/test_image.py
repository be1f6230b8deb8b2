from __future__ import annotations

import stat
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pytest
import tifffile
from image_corpus import smooth
from numpy.typing import NDArray
from PIL import Image, ImageCms

from agsr.errors import ImageError
from agsr.image import read_picture, read_rgb, write_picture, write_row_bands
from agsr.image.encode import FORMATS
from agsr.image.picture import Picture, RowBands, as_row_bands
from agsr.system.quiet_stderr import quiet_decoders

LOSSLESS = [".png", ".tif", ".webp", ".bmp"]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_rgb_round_trips_and_pillow_agrees(tmp_path: Path, suffix: str) -> None:
    picture, path = Picture(smooth((20, 31, 3))), tmp_path / f"Ünïcode 名{suffix}"
    write_picture(picture, path)
    assert np.array_equal(read_picture(str(path)).pixels, picture.pixels)
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), picture.pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_and_alpha_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = Picture(smooth((20, 31, 3), np.uint16), smooth((20, 31), np.uint16))
    path = tmp_path / f"deep{suffix}"
    write_picture(picture, path)
    found = read_picture(path)
    assert found.pixels.dtype == np.uint16
    assert np.array_equal(found.pixels, picture.pixels)
    assert found.alpha is not None
    assert picture.alpha is not None
    assert np.array_equal(found.alpha, picture.alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".tga"])
def test_colour_under_alpha_that_is_data_is_kept(tmp_path: Path, suffix: str) -> None:
    picture = Picture(smooth((20, 31, 3)), np.zeros((20, 31), np.uint8))
    picture.alpha[9:] = 200  # type: ignore[index]
    row_bands = replace(as_row_bands(picture), separate_alpha=True)
    write_row_bands(row_bands, tmp_path / f"a{suffix}")
    found = read_picture(tmp_path / f"a{suffix}")
    assert np.array_equal(found.pixels, picture.pixels)
    assert np.array_equal(found.alpha, picture.alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_grey_stays_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"grey{suffix}"
    write_picture(Picture(smooth((20, 31))), path)
    assert read_picture(path).pixels.shape == (20, 31)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".avif"])
def test_lossy_formats_are_close(tmp_path: Path, suffix: str) -> None:
    picture, path = Picture(smooth((32, 32, 3))), tmp_path / f"a{suffix}"
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


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA", "RGBA", "CMYK"])
def test_modes_of_pillow_are_read_as_pillow_shows_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(smooth((20, 31, 3))).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    found = read_picture(path).pixels
    shown = np.asarray(Image.open(path).convert("RGB" if found.ndim == 3 else "L"))
    assert np.abs(found.astype(int) - shown).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_depth_grey_and_alpha_are_kept(
    tmp_path: Path, suffix: str, dtype: type, colour: bool, alpha: bool
) -> None:
    pixels = smooth((20, 31, 3) if colour else (20, 31), dtype)
    picture = Picture(pixels, smooth((20, 31), dtype)[::-1].copy() if alpha else None)
    path = tmp_path / f"a{suffix}"
    write_picture(picture, path)
    stored = pixels if picture.alpha is None else np.dstack([pixels, picture.alpha])
    if suffix == ".tif":
        shown = tifffile.imread(path)
        assert shown.dtype == dtype
        assert np.array_equal(shown, stored)
    else:
        header = path.read_bytes()[24:26]
        assert header == bytes([np.dtype(dtype).itemsize * 8, 2 * colour + 4 * alpha])
    found = read_picture(path)
    assert found.pixels.dtype == dtype
    assert np.array_equal(found.pixels, pixels)
    assert (found.alpha is None) == (not alpha)
    if found.alpha is not None and picture.alpha is not None:
        assert np.array_equal(found.alpha, picture.alpha)


@pytest.mark.parametrize("colour", [False, True])
def test_deep_png_is_what_opencv_and_pillow_see(tmp_path: Path, colour: bool) -> None:
    pixels = smooth((20, 31, 3) if colour else (20, 31), np.uint16)
    write_picture(Picture(pixels), tmp_path / "a.png")
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(seen[..., ::-1] if colour else seen, pixels)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.mode == ("RGB" if colour else "I;16")


def _cmyk_profile() -> bytes:
    """By which ink of K makes grey, and C, M and Y leave the paper white."""
    grid = [(0 if k else 255, 128, 128) for _ in range(8) for k in (0, 1)]  # Lab, K fastest
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))  # identity
    table += bytes(range(256)) * 4 + bytes(sum(grid, ())) + bytes(range(256)) * 3
    table += bytes(-len(table) % 4)
    start = 128 + 4 + 12
    header = struct.pack(
        ">L4sL4s4s4s", start + len(table), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    header = header.ljust(128, b"\0")
    return header + struct.pack(">L4sLL", 1, b"A2B0", start, len(table)) + table


def test_cmyk_is_converted_by_its_profile_which_is_not_kept(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan.save(tmp_path / "plain.jpg")
    cyan.save(tmp_path / "profiled.jpg", icc_profile=_cmyk_profile())
    cyan.save(tmp_path / "damaged.jpg", icc_profile=b"no profile")
    shown = {path.stem: read_picture(path) for path in tmp_path.glob("*.jpg")}
    assert all(picture.metadata.icc is None for picture in shown.values())
    assert shown["profiled"].pixels.min() >= 250  # white, as its profile says
    for name in ("plain", "damaged"):
        assert np.abs(shown[name].pixels.astype(int) - (0, 255, 255)).max() <= 2


def test_lab_becomes_rgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(smooth((16, 16, 3)))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB").save(tmp_path / "a.tif")
    found = read_picture(tmp_path / "a.tif").pixels
    assert np.abs(found.astype(int) - np.asarray(rgb)).mean() <= 2


def test_a_long_row_of_png_is_cut_into_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.image.formats.png_writer._LARGEST_CHUNK", 100)
    pixels = np.random.default_rng(0).integers(0, 65535, (3, 500, 3), np.uint16)
    write_picture(Picture(pixels), tmp_path / "a.png")
    content, place, lengths = (tmp_path / "a.png").read_bytes(), 8, []
    while place < len(content):
        lengths.append(int.from_bytes(content[place : place + 4], "big"))
        place += lengths[-1] + 12  # length, kind and checksum
    assert max(lengths) == 100
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_pictures_the_first_is_used_with_a_warning(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    assert read_picture(tmp_path / f"a{suffix}").pixels[0, 0].tolist() == [255, 0, 0]
    assert "holds 3 pictures; only the first is used" in caplog.text


def test_a_jpeg_with_extras_is_a_jpeg(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Phones put more pictures behind the first; those that aren't previews of it are reported."""
    main, extra = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    main.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[extra])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert np.abs(read_picture(tmp_path / "a.jpg").pixels.astype(int) - (255, 0, 0)).max() <= 2
    assert caplog.messages == [f"{tmp_path}/a.jpg: the result lacks its 1 other picture"]


def test_too_many_pixels_are_rejected_before_decoding(tmp_path: Path) -> None:
    write_picture(Picture(smooth((20, 31, 3))), tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"31x20 is 620 pixels, more than 619.*--max-pixels 620"):
        read_picture(tmp_path / "a.png", max_pixels=619)
    assert read_picture(tmp_path / "a.png", max_pixels=620).pixels.shape == (20, 31, 3)
    bomb = struct.pack(">II", 1 << 30, 1 << 30)
    content = (tmp_path / "a.png").read_bytes()
    checked = b"IHDR" + bomb + content[24:29]
    content = content[:12] + checked + struct.pack(">I", zlib.crc32(checked)) + content[33:]
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(ImageError, match="1152921504606846976 pixels"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_quality_sets_the_size(tmp_path: Path, suffix: str) -> None:
    sizes = []
    for quality in (20, 80):
        write_picture(Picture(smooth((64, 64, 3))), tmp_path / f"a{suffix}", quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes[0] < sizes[1]


def test_noise_at_any_quality_can_be_written(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for quality in (1, 94, 100):
        write_picture(Picture(noise), tmp_path / "a.jpg", quality)
        assert read_picture(tmp_path / "a.jpg").pixels.shape == noise.shape


def test_quality_of_what_has_none_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="PNG has no quality setting"):
        write_picture(Picture(smooth((4, 4, 3))), tmp_path / "a.png", 80)


def test_unreadable_files_are_named_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    with pytest.raises(ImageError, match=r"bad\.png: no such file"):
        read_picture(bad)
    bad.touch()
    with pytest.raises(ImageError, match=r"bad\.png: the file is empty"):
        read_picture(bad)
    with pytest.raises(ImageError, match="a folder; expected an image file"):
        read_picture(tmp_path)
    bad.write_text("text")
    with pytest.raises(ImageError, match="not an image, or truncated"):
        read_picture(bad)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files_are_rejected_silently(
    tmp_path: Path, suffix: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    write_picture(Picture(smooth((64, 64, 3))), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with quiet_decoders(), pytest.raises(ImageError, match="truncated"):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_deep_files_are_rejected_where_eight_bits_are_needed(tmp_path: Path) -> None:
    write_picture(Picture(smooth((8, 8, 3), np.uint16)), tmp_path / "a.png")
    with pytest.raises(ImageError, match="16 bits per channel, expected 8"):
        read_rgb(tmp_path / "a.png")


def test_unknown_formats_are_rejected_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"can't write \.xyz; expected one of \.png"):
        write_picture(Picture(smooth((4, 4, 3))), tmp_path / "a.xyz")
    assert ".avif" in FORMATS


def test_a_failed_write_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")

    def disk_full(_: RowBands, stream: BinaryIO, *__: Any) -> None:
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agsr.image.files.write_encoded", disk_full)
    with pytest.raises(ImageError, match="No space left on device"):
        write_picture(Picture(smooth((4, 4, 3))), path)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


QUIET = """
import os, sys, threading, warnings
from agsr.system.quiet_stderr import quiet_decoders
from agsr.system.quiet_stderr import decoding
with quiet_decoders():
    os.write(2, b"a runtime\\n")
    with decoding():
        os.write(2, b"a library\\n")
    warnings.warn("a library")
    thread = threading.Thread(target=lambda: print("ours", file=sys.stderr))
    thread.start()
    thread.join()
os.write(2, b"afterwards\\n")
print("ours again", file=sys.stderr)
"""


def test_only_what_libraries_print_is_silenced() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True)
    assert done.stderr == "a runtime\nours\nafterwards\nours again\n"


CRASH = """
import os
from agsr.system.quiet_stderr import quiet_decoders
from agsr.system.quiet_stderr import decoding
with quiet_decoders(throughout={throughout}), decoding():
    os.abort()
"""


@pytest.mark.parametrize("throughout", [False, True])
def test_a_crash_is_reported_even_in_the_silence(throughout: bool) -> None:
    code = CRASH.format(throughout=throughout)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Fatal Python error: Aborted" in done.stderr


def test_videos_are_encoded_in_silence() -> None:
    code = QUIET.replace("quiet_decoders():", "quiet_decoders(throughout=True):")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "ours\nafterwards\nours again\n"


def test_new_files_have_ordinary_permissions_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    write_picture(Picture(smooth((4, 4, 3))), path)
    (tmp_path / "plain").touch()
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == expected


def test_too_large_for_the_format_is_an_error(tmp_path: Path) -> None:
    wide: NDArray[np.uint8] = np.zeros((1, 17000, 3), np.uint8)  # WebP ends at 16383
    with quiet_decoders(), pytest.raises(ImageError, match="can't encode 17000x1 as WEBP"):
        write_picture(Picture(wide), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("python_too", [False, True])
def test_a_closed_stderr_needs_no_silence(python_too: bool) -> None:
    code = (
        "import os, sys\nfrom agsr.system.quiet_stderr import quiet_decoders\n"
        f"os.close(2)\nif {python_too}: sys.stderr = None\n"
        "with quiet_decoders(): print('inside')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stdout == b"inside\n"


def test_what_a_format_loses_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture(smooth((20, 31, 3), np.uint16), smooth((20, 31), np.uint16))
    write_picture(picture, tmp_path / "a.jpg")
    assert [message.partition("a.jpg: ")[2] for message in caplog.messages] == [
        "16 bits per channel become 8, the maximum of JPEG",
        "composited on white, since JPEG has no alpha",
    ]
    caplog.clear()
    write_picture(picture, tmp_path / "a.png")
    assert not caplog.messages
