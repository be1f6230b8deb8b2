"""A corpus of PNG files of every kind, whole and damaged, and damaged files of every format.

What can't be decoded must be an `ImageError`: never another error, a crash, or a result.
"""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_metadata import TARGETS as TAGGED
from test_metadata import tagged_file

from agsr.decode import decode
from agsr.encode import FORMATS, encode
from agsr.errors import ImageError
from agsr.image import quiet_decoders
from agsr.picture import Picture

KINDS = [
    *((0, depth) for depth in (1, 2, 4, 8, 16)),  # grey
    *((2, depth) for depth in (8, 16)),  # RGB
    *((3, depth) for depth in (1, 2, 4, 8)),  # palette
    *((4, depth) for depth in (8, 16)),  # grey and alpha
    *((6, depth) for depth in (8, 16)),  # RGBA
]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
]
PALETTE: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
FLIPS = 500


def samples_of(kind: int, depth: int) -> NDArray[np.uint16]:
    random = np.random.default_rng(depth)
    return random.integers(0, 1 << depth, (11, 13, CHANNELS[kind]), dtype=np.uint16)


def png(kind: int, depth: int, interlaced: bool, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file of `samples_of`, written by the book, with extra chunks before the pixels."""
    samples = samples_of(kind, depth)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    rows = b"".join(_rows(part, depth) for part in parts if part.size)
    height, width = samples.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))]
    if kind == 3:
        chunks.append((b"PLTE", PALETTE[: 1 << depth].tobytes()))
    chunks += [*extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _rows(samples: NDArray[np.uint16], depth: int) -> bytes:
    flat = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in flat)
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint16)) & 1
    return b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_every_kind_of_png_is_read_exactly(kind: int, depth: int, interlaced: bool) -> None:
    samples, found = samples_of(kind, depth), decode(png(kind, depth, interlaced), "a")
    assert found.pixels.dtype == (np.uint16 if depth == 16 else np.uint8)
    if depth < 8 and kind == 0:
        samples = samples * (255 // ((1 << depth) - 1))
    if kind == 3:
        assert np.array_equal(found.pixels, PALETTE[samples[..., 0]])
        return
    colour = samples[..., :3] if kind in (2, 6) else samples[..., 0]
    assert np.array_equal(found.pixels, colour)
    assert (found.alpha is not None) == (kind in (4, 6))
    if found.alpha is not None:
        assert np.array_equal(found.alpha, samples[..., -1])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", [0, 2])
def test_one_colour_that_means_transparent_becomes_alpha(kind: int, depth: int) -> None:
    samples = samples_of(kind, depth)
    key = samples[4, 5].astype(">u2").tobytes()
    found = decode(png(kind, depth, False, (b"tRNS", key)), "a")
    assert found.alpha is not None
    hidden = (samples == samples[4, 5]).all(axis=2)
    assert np.array_equal(found.alpha == 0, hidden)
    assert np.unique(found.alpha).tolist() == [0, (1 << depth) - 1]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_truncated_png_of_every_kind_is_refused(kind: int, depth: int, interlaced: bool) -> None:
    _check_truncated(png(kind, depth, interlaced))


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_truncated_files_of_every_format_are_refused(suffix: str, dtype: type) -> None:
    _check_truncated(encode(_picture(dtype), suffix, "a"))


def _check_truncated(content: bytes) -> None:
    """A truncated file is refused, unless its end alone is missing, which holds no pixels."""
    whole, refused = decode(content, "a").pixels, 0
    for sixteenth in range(1, 16):
        with quiet_decoders():
            try:
                found = decode(content[: len(content) * sixteenth // 16], "a").pixels
            except ImageError as error:
                assert "truncated" in str(error)  # noqa: PT017  # not every length must raise
                refused += 1
            else:
                assert np.array_equal(found, whole)
    assert refused >= 12


def test_flipped_bits_never_crash(tmp_path: Path) -> None:
    """In a process of its own, which a crash would end before its last line."""
    done = subprocess.run(
        [sys.executable, __file__], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    decoded, refused = map(int, done.stdout.split())
    assert decoded + refused == FLIPS
    assert refused > FLIPS // 4


def damaged() -> Iterator[bytes]:
    """Files of every kind, each with one to eight bits turned."""
    whole = [png(kind, depth, interlaced) for kind, depth in KINDS for interlaced in (False, True)]
    whole += [
        encode(_picture(dtype), suffix, "a")
        for suffix in FORMATS
        for dtype in (np.uint8, np.uint16)
    ]
    whole += [_animation(), *map(tagged_file, TAGGED)]
    random = np.random.default_rng(20)
    for number in range(FLIPS):
        content = bytearray(whole[number % len(whole)])
        for place in random.integers(0, len(content) * 8, random.integers(1, 9)):
            content[place // 8] ^= 1 << (place % 8)
        yield bytes(content)


def _picture(dtype: type) -> Picture:
    random = np.random.default_rng(0)
    largest = np.iinfo(dtype).max
    return Picture(random.integers(0, largest, (24, 20, 3), dtype=dtype))


def _animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(PALETTE.reshape(16, 16, 3)), Image.new("RGB", (16, 16))]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def _decode_all() -> tuple[int, int]:
    decoded = sum(map(_is_decoded, damaged()))
    return decoded, FLIPS - decoded


def _is_decoded(content: bytes) -> bool:
    """Whether a picture comes out; then it must also go into a file, with what is said of it."""
    try:
        picture = decode(content, "a")
        return all(encode(picture, suffix, "a") for suffix in (".png", ".tif", ".jpg"))
    except ImageError:
        return False


if __name__ == "__main__":
    with quiet_decoders():
        counts = _decode_all()
    print(*counts)  # noqa: T201  # the result of this process
