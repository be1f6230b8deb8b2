"""Pages of TIFF files: how the picture is found, and what that may cost."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import tifffile

from agsr.errors import ImageError
from agsr.image.decode import decode
from agsr.image.formats.tiff_pages import open_tiff
from agsr.image.metadata import ifd

_PAGES = 300


def _pages(rows: list[tuple[int, int, int, int]], behind: bytes, step: int | None = None) -> bytes:
    """A file whose pages have the same rows, then bytes at which offset 0 of values points."""
    size = 6 + 12 * len(rows)
    step, start = step or size, 8
    end = start + (_PAGES - 1) * step + size
    parts = [struct.pack("<2sHI", b"II", 42, start)]
    for number in range(_PAGES):
        following = start + (number + 1) * step if number + 1 < _PAGES else 0
        table = b"".join(
            struct.pack("<HHII", tag, kind, count, value if count == 1 else end)
            for tag, kind, count, value in rows
        )
        parts.append(struct.pack("<H", len(rows)) + table + struct.pack("<I", following))
    return b"".join(parts) + behind


@pytest.mark.parametrize(("tag", "kind", "width"), [(65000, 1, 1), (330, 4, 4), (254, 4, 4)])
def test_values_that_all_pages_share_are_not_kept_for_each(tag: int, kind: int, width: int) -> None:
    behind = bytes(1 << 18)
    rows = [(256, 4, 1, 5), (257, 4, 1, 5), (tag, kind, len(behind) // width, 0)]
    content = _pages(rows, behind)
    tracemalloc.start()
    try:
        found = open_tiff(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.pages == _PAGES
    assert found.values(256) == (5,)
    assert peak < 20 * len(content)  # numbers of Python are larger than those of files


def test_the_picture_has_all_of_its_directory() -> None:
    found = open_tiff(_pages([(256, 4, 1, 5), (257, 4, 1, 6), (258, 3, 1, 8)], b""))
    assert found is not None
    assert set(found.directory) == {256, 257, 258}


def test_directories_that_overlap_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    read, rows_of = list[int](), ifd.rows_of

    def counted(
        content: bytes, offset: int, order: str, big: bool
    ) -> Iterator[tuple[int, int, int, int]]:
        for row in rows_of(content, offset, order, big):
            read.append(row[0])
            yield row

    monkeypatch.setattr(ifd, "rows_of", counted)
    count, steps = 2000, 200
    content = bytearray(12 * count + 4 * steps + 64)
    struct.pack_into("<2sHI", content, 0, b"II", 42, 8)
    for number in range(steps):  # each has nearly all rows of the next one, too
        at = 8 + 4 * number
        struct.pack_into("<H", content, at, count)
        struct.pack_into("<I", content, at + 2 + 12 * count, at + 4 if number + 1 < steps else 0)
    open_tiff(bytes(content))
    assert len(read) < 3 * count


def test_a_depth_is_rejected_before_its_samples_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    volume = np.zeros((3, 16, 16), np.float32)
    tifffile.imwrite(stream, volume, photometric="minisblack", volumetric=True)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ImageError, match="of dimensions ZYX; expected one picture"):
        decode(stream.getvalue(), "a.tif")
