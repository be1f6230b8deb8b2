"""Headers of image files: what they show before anything is decoded; each is read once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agsr.engines.batch.headers import count_pixels, estimate_work, file_compression, peek
from agsr.engines.batch.plan import plan


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that Pillow or a stream opens."""
    names: list[str] = []

    def noting(original: Any) -> Any:
        def call(file: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(file, Path):
                names.append(file.name)
            return original(file, *arguments, **options)

        return call

    monkeypatch.setattr(Image, "open", noting(Image.open))
    monkeypatch.setattr(Path, "open", noting(Path.open))
    return names


def test_a_batch_opens_each_file_once_for_its_header(tmp_path: Path, opened: list[str]) -> None:
    names = ("a.jpg", "a_x4.png", "b.png", "c.bmp")
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name, quality=40)
    opened.clear()
    files = [job.source for job in plan([tmp_path / name for name in ("a.jpg", "b.png", "c.bmp")])]
    assert count_pixels(files) == 3 * 64
    assert estimate_work(files) == [64.0] * 3
    assert [str(file_compression(file)) for file in files] == ["JPEG, quality 40", "None", "None"]
    assert sorted(opened) == list(names)


def test_a_file_that_was_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (8, 6)).save(path)
    assert peek(path).size == (8, 6)
    Image.new("L", (6, 8)).save(path)
    os.utime(path, ns=(0, 0))  # however coarse the clock of the file system is
    assert peek(path).size == (6, 8)


def test_compression_is_found_where_the_header_does_not_show_it(tmp_path: Path) -> None:
    Image.effect_noise((32, 32), 40).convert("RGB").save(tmp_path / "a.webp", quality=5)
    Image.new("RGB", (32, 32)).save(tmp_path / "b.tif", compression="jpeg", quality=30)
    found = [file_compression(tmp_path / name) for name in ("a.webp", "b.tif", "gone.png")]
    assert [kind and (kind.format, kind.strong) for kind in found] == [
        ("WebP", True),
        ("JPEG in TIFF", True),
        None,
    ]


def test_pixels_are_counted_by_the_headers_until_there_are_enough(tmp_path: Path) -> None:
    for name, side in (("a.png", 10), ("b.png", 20)):
        Image.new("L", (side, side)).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    a, b, c, gone = (tmp_path / name for name in ("a.png", "b.png", "c.png", "gone.png"))
    assert count_pixels([a, b]) == 500
    assert count_pixels([a, c], enough=100) == 100
    assert count_pixels([c]) is None
    assert count_pixels([gone, a]) == 100
    assert count_pixels([Path("-")]) is None
    assert count_pixels([tmp_path]) is None
