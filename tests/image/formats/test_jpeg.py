"""The quality of JPEG files, by their quantization tables."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from conftest import PHOTO
from PIL import Image

from agsr.image.compression.jpeg import first_table, table_quality


def _saved(mode: str, **options: object) -> Image.Image:
    stream = io.BytesIO()
    Image.open(PHOTO).convert(mode).save(stream, "JPEG", **options)
    return Image.open(stream)


def _quality(image: Image.Image) -> int:
    tables = image.quantization  # type: ignore[attr-defined]  # of JpegImageFile
    return table_quality(tables[0])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_quality_is_the_one_given_to_pillow(mode: str) -> None:
    found = {q: _quality(_saved(mode, quality=q)) for q in (*range(1, 100, 7), 50, 75, 95, 100)}
    assert all(found[q] == q for q in found if q > 8)
    assert all(abs(found[q] - q) < 5 for q in found)  # tables at their limit, 255


def test_quality_is_the_one_given_to_opencv() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    for quality in (30, 75, 90):
        _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert _quality(Image.open(io.BytesIO(content.tobytes()))) == quality


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
    rated = _quality(_saved("RGB", qtables=[table, table]))
    assert rated == pytest.approx(quality, abs=10)


def test_tables_of_a_stream_are_those_that_pillow_reads() -> None:
    for quality in (20, 60, 90):
        stream = io.BytesIO()
        image = Image.open(PHOTO).convert("RGB")
        image.save(stream, "JPEG", quality=quality)
        assert table_quality(first_table(stream.getvalue())) == quality
    assert first_table(b"") == first_table(b"\xff\xd8\xff\xd9") == []
