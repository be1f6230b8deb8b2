"""Results in bands: the same as made at once, and closed whatever happens."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Repeat
from numpy.typing import NDArray
from PIL import Image

from agsr.backend import Batch
from agsr.engines.batch.plan import plan
from agsr.engines.batch.runner import InferOptions, process
from agsr.engines.concurrency import Channel
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ImageError
from agsr.image import write_row_bands
from agsr.image.decode import decode
from agsr.image.encode import encode, write_encoded
from agsr.image.ops.output_size import OutputSize
from agsr.image.ops.resample import downsample, downsample_bands
from agsr.image.picture import Picture, Pixels, as_row_bands, materialize


def _random(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> Pixels:
    levels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)
    result: Pixels = levels
    return result


def _picture(height: int, width: int, colour: bool, alpha: bool, dtype: type) -> Picture:
    pixels = _random((height, width, 3) if colour else (height, width), dtype)
    opacity = _random((height, width), dtype, 1)
    opacity[opacity < np.iinfo(dtype).max // 3] = 0
    return Picture(pixels, opacity if alpha else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_files_do_not_depend_on_the_bands(
    suffix: str, dtype: type, colour: bool, alpha: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.image.formats.png_writer._SHARE_BYTES", 2000)
    monkeypatch.setattr("agsr.image.formats.tiff_writer._STRIP_BYTES", 2000)
    picture = _picture(60, 31, colour, alpha, dtype)
    whole = encode(picture, suffix, "a")
    for rows in (1, 7, 59):
        stream = io.BytesIO()
        write_encoded(as_row_bands(picture, rows), stream, suffix, "a")
        assert stream.getvalue() == whole
    if suffix == ".png":
        found = decode(whole, "a")
        assert np.array_equal(found.pixels, picture.pixels)
        assert found.alpha is None or np.array_equal(found.alpha, picture.alpha)  # type: ignore[arg-type]


def test_png_is_as_small_as_pillows_for_photos_and_drawings(photo: NDArray[np.uint8]) -> None:
    large = np.asarray(Image.fromarray(photo).resize((512, 512), Image.Resampling.BICUBIC))
    drawing = np.zeros((512, 512, 3), np.uint8)
    drawing[::32], drawing[:, ::16] = (200, 30, 5), (0, 0, 90)
    for pixels in (large, drawing):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
        assert len(encode(Picture(pixels), ".png", "a")) <= 1.03 * len(stream.getvalue())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_beyond_four_gigabytes_is_bigtiff(
    monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    picture = _picture(60, 31, colour=True, alpha=True, dtype=dtype)
    monkeypatch.setattr("agsr.image.formats.tiff_writer._LARGEST", 1000)
    monkeypatch.setattr("agsr.image.formats.tiff_writer._STRIP_BYTES", 2000)
    with tifffile.TiffFile(io.BytesIO(encode(picture, ".tif", "a"))) as written:
        assert written.is_bigtiff
        stored = np.dstack([picture.pixels, picture.alpha])  # type: ignore[list-item]
        assert np.array_equal(written.asarray(), stored)


@pytest.mark.parametrize("shape", [(90, 130), (200, 61), (1, 40), (40, 1)])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [4, 2.3])
def test_bands_are_the_whole_result(
    shape: tuple[int, int], colour: bool, dtype: type, scale: float
) -> None:
    picture = _picture(*shape, colour, True, dtype)
    sizing = OutputSize(scale=scale)
    whole = Upscaler(backend=Repeat(), tile=0).picture(picture, sizing=sizing)
    upscaler = Upscaler(backend=Repeat(), tile=16, halo=4)
    row_bands = upscaler.row_bands(picture, sizing=sizing)
    bands = list(row_bands.bands)
    assert len(bands) > 1 or shape[0] == 1
    assert np.array_equal(np.concatenate([b.pixels for b in bands]), whole.pixels)
    alphas = [b.alpha for b in bands if b.alpha is not None]
    assert np.array_equal(np.concatenate(alphas), whole.alpha)  # type: ignore[arg-type]
    assert (row_bands.height, row_bands.width) == whole.pixels.shape[:2]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "size", [(32, 40), (50, 66), (49, 66), (50, 65), (63, 80), (64, 79), (1, 1)]
)
@pytest.mark.parametrize("margin", [0, 7])
def test_shrinking_in_bands_is_pillows_along_rows_and_then_columns(
    size: tuple[int, int], margin: int, dtype: type
) -> None:
    """Also of what lies within a margin, which the filter reads."""
    picture = _picture(64, 80, colour=False, alpha=False, dtype=dtype)
    height, width = min(size[0], 64 - 2 * margin), min(size[1], 80 - 2 * margin)
    results = [
        materialize(downsample_bands(as_row_bands(picture, rows), height, width, margin)).pixels
        for rows in (64, 1, 5, 33)
    ]
    assert all(np.array_equal(banded, results[0]) for banded in results)
    assert margin or np.array_equal(results[0], downsample(picture, height, width).pixels)
    narrow = Image.fromarray(picture.pixels.astype(np.float32)).resize(
        (width, 64), Image.Resampling.BICUBIC, (margin, 0, 80 - margin, 64)
    )
    inside = (0, margin, width, 64 - margin)
    small = np.asarray(narrow.resize((width, height), Image.Resampling.BICUBIC, inside))
    expected = np.floor(small.clip(0, np.iinfo(dtype).max) + np.float32(0.5))
    assert np.abs(expected - results[0]).max() <= (0 if dtype is np.uint8 else 1)


def test_memory_that_runs_out_half_way_costs_only_the_rows_below() -> None:
    class Scarce(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if len(self.shapes) > 5 and lr.shape[2] > 30:
                raise MemoryError
            return super()._run(lr)

    picture = _picture(100, 90, colour=True, alpha=True, dtype=np.uint8)
    scarce = Scarce()
    bands = list(Upscaler(backend=scarce, tile=32, halo=3).row_bands(picture).bands)
    whole = Upscaler(backend=Repeat(), tile=0).picture(picture)
    assert len({shape[2] for shape in scarce.shapes}) == 2
    assert np.array_equal(np.concatenate([band.pixels for band in bands]), whole.pixels)
    alphas = [band.alpha for band in bands if band.alpha is not None]
    assert np.array_equal(np.concatenate(alphas), whole.alpha)  # type: ignore[arg-type]


def test_abandoned_bands_unlock_the_network() -> None:
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=1)
    row_bands = upscaler.row_bands(Picture(_random((40, 40, 3))), sizing=OutputSize(scale=3))
    next(row_bands.bands)
    row_bands.close()
    assert upscaler(_random((9, 9, 3))).shape == (36, 36, 3)


def test_bands_are_closed_through_whatever_was_made_of_them() -> None:
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=1)
    row_bands = upscaler.row_bands(Picture(_random((40, 40, 3))))
    next(row_bands.bands)
    downsample_bands(row_bands.mapped(lambda band: band), 50, 50).close()  # which never began
    assert next(row_bands.bands, None) is None
    assert upscaler(_random((9, 9, 3))).shape == (36, 36, 3)


def _full(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("call", ["array", "file"])
def test_a_result_that_does_not_fit_unlocks_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=1)
    monkeypatch.setattr("agsr.image.picture._empty", _full)
    monkeypatch.setattr("agsr.image.encode.samples_of", _full)
    shapes: list[tuple[int, ...]] = []

    def use() -> None:
        try:
            if call == "array":
                upscaler(_random((40, 40, 3)))
            else:
                row_bands = upscaler.row_bands(Picture(_random((40, 40, 3))))
                write_row_bands(row_bands, tmp_path / "a.jpg")
        except MemoryError:  # its traceback keeps what made the bands
            shapes.append(upscaler(_random((1, 2, 3))).shape)

    using = threading.Thread(target=use, daemon=True)
    using.start()
    using.join(20)
    assert not using.is_alive()
    assert shapes == [(4, 8, 3)]


def test_a_channel_waits_for_its_consumer_and_raises_errors_there() -> None:
    channel: Channel[int] = Channel()
    taken: list[int] = []
    made: list[int] = []

    def use() -> None:
        with pytest.raises(ImageError, match="broken"):
            taken.extend(channel)

    for value in range(5):
        if value == 1:
            user = threading.Thread(target=use)
            assert made == [0]
            user.start()
        assert channel.put(value)
        made.append(value)
    channel.close(ImageError("broken"))
    user.join(10)
    channel.cancel()
    assert not channel.put(9)
    assert not user.is_alive()


def test_a_writer_that_fails_stops_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agsr.image.files.write_encoded", disk_full)
    backend = Repeat()
    Image.new("RGB", (20, 4000)).save(tmp_path / "tall.png")
    jobs = plan([tmp_path / "tall.png"])
    (outcome,) = process(Upscaler(backend=backend, tile=8, halo=1), jobs, InferOptions())
    assert outcome.error is not None
    assert outcome.error.endswith("can't be written: No space left on device")
    assert len(backend.shapes) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["tall.png"]


def test_a_network_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    class Tired(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if len(self.shapes) > 9:
                raise BackendError("tired")
            return super()._run(lr)

    Image.new("RGB", (20, 400)).save(tmp_path / "tall.png")
    jobs = plan([tmp_path / "tall.png"])
    (outcome,) = process(Upscaler(backend=Tired(), tile=8, halo=1), jobs, InferOptions())
    assert outcome.error == f"{tmp_path / 'tall.png'}: tired"
    assert [path.name for path in tmp_path.iterdir()] == ["tall.png"]
