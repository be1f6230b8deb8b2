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
from agsr.decode import decode
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


def test_tables_of_other_encoders_have_a_quality_too() -> None:
    """Photoshop's and cameras' tables are no multiples of the standard's."""
    coarse, fine = ([level] * 64 for level in (40, 3))
    rated = [quality_of(_saved("RGB", qtables=[table, table])) for table in (coarse, fine)]
    assert rated[0] is not None
    assert rated[1] is not None
    assert 50 < rated[0] < 75
    assert 90 < rated[1] < 100


def test_a_picture_knows_what_it_was(photos: Path) -> None:
    read = {path.name: decode(path.read_bytes(), path.name) for path in photos.iterdir()}
    assert read["bad.jpg"].metadata.jpeg_quality == 40
    assert read["bad.jpg"].metadata.stripped().jpeg_quality == 40
    assert read["plain.png"].metadata.jpeg_quality is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bad.jpg"], "note: the input is a strongly compressed JPEG file, and psnr enlarges"),
        (["bad.jpg", "worse.jpg", "good.jpg", "-w", "gan"], "note: 2 of 3 inputs are strongly"),
        (["bad.jpg", "--strip"], "-w photo takes them out"),
        (["bad.jpg", "-w", "photo"], None),
        (["bad.jpg", "-q"], None),
        (["good.jpg", "plain.png"], None),
    ],
)
def test_what_takes_out_the_traces_is_told_once(
    photos: Path, arguments: list[str], told: str | None
) -> None:
    assert photos.is_dir()
    result = CliRunner().invoke(main, ["infer", "--steps", "1", *arguments])
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if "strongly compressed" in line]
    assert len(notes) == (told is not None)
    assert told is None or told in notes[0]
