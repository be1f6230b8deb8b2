"""The quality of JPEG files, and what is said of bad ones."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import PHOTO
from PIL import Image

from agsr.cli import main
from agsr.engines.headers import jpeg_quality
from agsr.jpeg import quality_of


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small picture in four files."""
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 24, 20))
    photo.save(tmp_path / "good.jpg", quality=95)
    photo.save(tmp_path / "bad.jpg", quality=40)
    photo.save(tmp_path / "worse.jpg", quality=20)
    photo.save(tmp_path / "plain.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _saved(mode: str, **options: object) -> Image.Image:
    stream = io.BytesIO()
    Image.open(PHOTO).convert(mode).save(stream, "JPEG", **options)
    return Image.open(stream)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_quality_is_what_pillow_was_told(mode: str) -> None:
    found = {q: quality_of(_saved(mode, quality=q)) for q in (*range(1, 100, 7), 50, 75, 95, 100)}
    assert all(found[q] == q for q in found if q > 8)
    assert all(abs((found[q] or 100) - q) < 5 for q in found)  # tables at their limit, 255


def test_quality_is_what_opencv_was_told() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    for quality in (30, 75, 90):
        _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert quality_of(Image.open(io.BytesIO(content.tobytes()))) == quality


MOZJPEG = [
    *(16, 16, 16, 18, 25, 37, 56, 85, 16, 17, 20, 27, 34, 40, 53, 75),
    *(16, 20, 24, 31, 43, 62, 91, 135, 18, 27, 31, 40, 53, 74, 106, 156),
    *(25, 34, 43, 53, 69, 94, 131, 189, 37, 40, 62, 74, 94, 124, 169, 238),
    *(56, 53, 91, 106, 131, 169, 226, 311, 85, 75, 135, 156, 189, 238, 311, 418),
]
"""Its own table of quality 50, by N. Robidoux: far coarser than the usual in fine structures."""


@pytest.mark.parametrize("quality", [75, 85, 90])
def test_tables_of_another_shape_have_nearly_that_quality(quality: int) -> None:
    percent = 200 - 2 * quality
    table = [min(255, max(1, (step * percent + 50) // 100)) for step in MOZJPEG]
    rated = quality_of(_saved("RGB", qtables=[table, table]))
    assert rated == pytest.approx(quality, abs=10)


def test_files_without_a_table_have_no_quality(photos: Path) -> None:
    (photos / "cut.jpg").write_bytes((photos / "bad.jpg").read_bytes()[:40])
    found = {path.name: jpeg_quality(path) for path in photos.iterdir()}
    known = {"good.jpg": 95, "bad.jpg": 40, "worse.jpg": 20}
    assert found == {**known, "plain.png": None, "cut.jpg": None}
    assert jpeg_quality(photos) is None
    assert jpeg_quality(Path("-")) is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bad.jpg"], "note: the input is a JPEG file of quality 80 or less, and psnr enlarges"),
        (["bad.jpg", "worse.jpg", "good.jpg", "-w", "gan"], "note: 2 of 3 inputs are JPEG files"),
        (["bad.jpg", "--strip"], "-w photo was trained to take them out"),
        (["bad.jpg", "gone.png"], "note: 1 of 2 inputs is a JPEG file of"),
        (["bad.jpg", "-w", "photo"], None),
        (["bad.jpg", "-q"], None),
        (["bad.jpg", "--separate-alpha"], None),
        (["bad.jpg", "--normal-map"], None),
        (["good.jpg", "plain.png"], None),
    ],
)
def test_what_takes_out_the_traces_is_told_once(
    photos: Path, arguments: list[str], told: str | None
) -> None:
    assert photos.is_dir()
    result = CliRunner().invoke(main, ["infer", "--steps", "1", *arguments])
    assert result.exit_code == ("gone.png" in arguments)
    notes = [line for line in result.stderr.splitlines() if "of quality" in line]
    assert len(notes) == (told is not None)
    assert told is None or told in notes[0]
