"""How strongly inputs are compressed, by their headers, and the note on it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PHOTO
from PIL import Image, ImageDraw

from agsr.cli import main
from agsr.image.compression import av1, detect_compression, vp8

SMALL = Image.open(PHOTO).convert("RGB").crop((0, 0, 40, 36))


def _drawing() -> Image.Image:
    image = Image.new("RGB", (300, 130), "white")
    for row in range(12):
        ImageDraw.Draw(image).text((5, 10 * row), "a drawing with text", fill="black")
    return image


def _encoded(image: Image.Image, kind: str, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


@pytest.mark.parametrize(
    "image", [SMALL, _drawing(), SMALL.convert("L")], ids=["a", "text", "grey"]
)
@pytest.mark.parametrize(
    ("kind", "options", "strong"),
    [
        ("JPEG", {"quality": 40}, True),
        ("JPEG", {"quality": 90}, False),
        ("TIFF", {"compression": "jpeg", "quality": 50}, True),
        ("TIFF", {"compression": "jpeg", "quality": 92}, False),
        ("TIFF", {"compression": "tiff_lzw"}, None),
        ("WEBP", {"quality": 60}, True),
        ("WEBP", {"quality": 92}, False),
        ("WEBP", {"lossless": True}, None),
        ("AVIF", {"quality": 45}, True),
        ("AVIF", {"quality": 85}, False),
        ("PNG", {}, None),
        ("BMP", {}, None),
    ],
)
def test_strong_compression_is_known_by_the_header(
    image: Image.Image, kind: str, options: dict[str, Any], strong: bool | None
) -> None:
    found = detect_compression(_encoded(image, kind, **options))
    assert (found.strong if found else None) is strong


@pytest.mark.parametrize("quality", range(1, 100, 14))
def test_the_quantizer_of_webp_is_what_libwebp_derives_from_its_quality(quality: int) -> None:
    content = _encoded(SMALL, "WEBP", quality=quality).getvalue()
    linear = quality / 150 if quality < 75 else quality / 50 - 1
    found = vp8.quantizer(content[content.index(b"VP8 ") + 8 :][:256])
    assert found == pytest.approx(127 * (1 - linear ** (1 / 3)), abs=8)  # segments differ a little


def test_profiles_and_animations_hide_no_quantizer() -> None:
    profile = _encoded(SMALL, "WEBP", quality=30, icc_profile=b"\1" * 4001)
    frames = _encoded(SMALL, "WEBP", quality=30, save_all=True, append_images=[SMALL.rotate(90)])
    alpha = _encoded(SMALL.convert("RGBA").rotate(9), "WEBP", quality=30)
    assert all((f := detect_compression(s)) and f.strong for s in (profile, frames, alpha))


def test_the_quantizer_of_avif_falls_with_its_quality() -> None:
    steps = [
        av1.quantizer(_encoded(image, "AVIF", quality=quality, **options).getvalue())
        for image, options in (
            (SMALL, {}),
            (_drawing(), {"tile_rows": 1}),
            (SMALL.resize((900, 700)), {}),
        )
        for quality in (100, 90, 75, 50, 30, 0)
    ]
    for found in (steps[:6], steps[6:12], steps[12:]):
        assert found == sorted(found)
        assert (found[0], found[-1]) == (0, 255)
        assert 20 < found[1] < 40 < found[2] < 100 < found[3] < 160


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP", "AVIF"])
def test_damaged_headers_are_no_failure(kind: str) -> None:
    options = {"compression": "jpeg"} if kind == "TIFF" else {}
    content = _encoded(SMALL, kind, quality=20, **options).getvalue()
    for end in range(0, min(len(content), 700), 7):
        detect_compression(io.BytesIO(content[:end]))
        detect_compression(io.BytesIO(content[:end] + bytes(50) + content[end + 50 :]))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small picture in several files."""
    SMALL.save(tmp_path / "good.jpg", quality=95)
    SMALL.save(tmp_path / "bad.jpg", quality=40)
    SMALL.save(tmp_path / "worse.webp", quality=20)
    SMALL.save(tmp_path / "bad.avif", quality=30)
    SMALL.save(tmp_path / "bad.tif", compression="jpeg", quality=40)
    SMALL.save(tmp_path / "plain.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (
            ["bad.jpg"],
            "note: the input has traces of compression (JPEG, quality 40), which psnr enlarges",
        ),
        (["bad.avif"], "note: the input has traces of compression (AVIF, quantizer "),
        (["bad.tif"], "note: the input has traces of compression (JPEG in TIFF, quality 40)"),
        (
            ["bad.jpg", "worse.webp", "good.jpg"],
            "2 of 3 inputs have traces of compression (bad.jpg: ",
        ),
        (["bad.jpg", "--strip"], "-w photo was trained to remove them"),
        (["bad.jpg", "gone.png"], "note: 1 of 2 inputs has traces of compression"),
        (["bad.jpg", "-w", "photo"], None),
        (["bad.jpg", "-w", "psnr"], None),
        (["bad.jpg", "-q"], None),
        (["bad.jpg", "--separate-alpha"], None),
        (["bad.jpg", "--normal-map"], None),
        (["good.jpg", "plain.png"], None),
    ],
)
@pytest.mark.usefixtures("photos")
def test_a_note_names_the_weights_for_it_once_before_the_work(
    arguments: list[str], reported: str | None
) -> None:
    result = CliRunner().invoke(main, ["infer", "--steps", "1", *arguments])
    assert result.exit_code == ("gone.png" in arguments)
    notes = [
        line for line in result.output.splitlines() if "traces of" in line or "-w photo" in line
    ]
    assert len(notes) == (reported is not None)
    assert reported is None or reported in notes[0]
    assert reported is None or result.output.splitlines()[0] == notes[0]  # before the first result


@pytest.mark.usefixtures("photos")
def test_the_note_comes_for_stdin_too() -> None:
    found = CliRunner().invoke(
        main, ["infer", "-s", "1", "-", "-o", "x.png"], input=Path("bad.jpg").read_bytes()
    )
    assert found.exit_code == 0
    assert found.stderr.count("traces of compression (JPEG, quality 40)") == 1


def test_the_help_says_what_the_weights_are_for() -> None:
    shown = " ".join(CliRunner().invoke(main, ["infer", "--help"]).stdout.split())
    assert "gan: crisp" in shown
    assert "photo: for compressed, noisy or soft inputs" in shown
