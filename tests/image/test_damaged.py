"""PNG files of every kind, and damaged files of every format.

What can't be decoded must be an `ImageError`: never another error, a crash, or a result.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PYTHONPATH
from image_corpus import (
    FLIPS,
    KINDS,
    PALETTE,
    READABLE,
    WHOLE,
    damaged,
    png,
    samples_of,
    truncated,
)

from agsr.errors import ImageError
from agsr.image.decode import decode
from agsr.image.encode import encode
from agsr.system.quiet_stderr import quiet_decoders


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


@pytest.mark.parametrize("name", READABLE)
def test_truncated_files_of_every_kind_are_rejected(name: str) -> None:
    """Unless what is missing holds no pixels of the first picture."""
    whole, refused = decode(WHOLE[name], name).pixels, 0
    for content in truncated(WHOLE[name]):
        with quiet_decoders():
            try:
                found = decode(content, name).pixels
            except ImageError as error:
                assert "truncated" in str(error)  # noqa: PT017  # not every length must raise
                refused += 1
            else:
                assert np.array_equal(found, whole)
    assert refused >= 12


def test_flipped_bits_never_crash(tmp_path: Path) -> None:
    """In a separate process, which a crash would end before its last line."""
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    decoded, refused = map(int, done.stdout.split())
    assert decoded + refused == FLIPS
    assert refused > FLIPS // 4


def _decode_all() -> tuple[int, int]:
    decoded = sum(map(_is_decoded, damaged()))
    return decoded, FLIPS - decoded


def _is_decoded(content: bytes) -> bool:
    """Whether a picture comes out; then it must also go into a file, with what is said of it."""
    try:
        picture = decode(content, "a.tga")  # Targa is known by its name alone
        return all(encode(picture, suffix, "a") for suffix in (".png", ".tif", ".jpg"))
    except ImageError:
        return False


if __name__ == "__main__":
    with quiet_decoders():
        counts = _decode_all()
    print(*counts)  # noqa: T201  # the result of this process
