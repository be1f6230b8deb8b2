"""Bounded memory: what is free is found out, results are made and written in bands."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tifffile
from conftest import ROOT, Repeat
from fake_gpu import FakeCuda
from numpy.typing import NDArray
from PIL import Image

from agsr.backend import Batch
from agsr.decode import decode
from agsr.encode import FORMATS, encode, write_encoded
from agsr.engines import ort_backend, room
from agsr.engines.handover import Handover
from agsr.engines.jobs import plan
from agsr.engines.ort_backend import OrtBackend
from agsr.engines.pipeline import InferOptions, process
from agsr.engines.tile_choice import TileChoice
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ImageError
from agsr.image import write_stripes
from agsr.memory import free_memory, group_limits
from agsr.picture import Picture, Pixels, gathered, in_stripes
from agsr.shrink import shrunk, shrunk_stripes
from agsr.sizing import Sizing
from agsr.tiling import AUTO_AREA


def test_free_memory_is_what_psutil_and_the_control_groups_leave() -> None:
    expected = min([psutil.virtual_memory().available, *group_limits()])
    assert free_memory() == pytest.approx(expected, rel=0.2)


def _random(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> Pixels:
    levels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)
    result: Pixels = levels
    return result


def _picture(height: int, width: int, colour: bool, alpha: bool, dtype: type) -> Picture:
    pixels = _random((height, width, 3) if colour else (height, width), dtype)
    opacity = _random((height, width), dtype, 1)
    opacity[opacity < np.iinfo(dtype).max // 3] = 0
    return Picture(pixels, opacity if alpha else None)


def _files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_control_groups_are_found(tmp_path: Path) -> None:
    second = _files(
        tmp_path / "v2",
        {
            "proc/self/cgroup": "0::/user/agsr\n",
            "sys/fs/cgroup/user/memory.max": "900\n",
            "sys/fs/cgroup/user/memory.current": "400\n",
            "sys/fs/cgroup/user/memory.stat": "anon 300\ninactive_file 100\n",
            "sys/fs/cgroup/user/agsr/memory.max": "max\n",
            "sys/fs/cgroup/user/agsr/memory.current": "400\n",
            "sys/fs/cgroup/user/agsr/memory.stat": "inactive_file 100\n",
        },
    )
    assert list(group_limits(second)) == [600]
    memory = "sys/fs/cgroup/memory/"
    first = _files(
        tmp_path / "v1",
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/not/seen/in/a/container\n",
            f"{memory}memory.limit_in_bytes": "5000",
            f"{memory}memory.usage_in_bytes": "1000",
            f"{memory}memory.stat": "total_inactive_file 10",
        },
    )
    assert list(group_limits(first)) == [4010]
    (first / memory / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert list(group_limits(first)) == []
    assert list(group_limits(tmp_path / "elsewhere")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_of_the_address_space_counts() -> None:
    code = (
        "import resource, psutil\n"
        "from agsr.memory import free_memory\n"
        "limit = psutil.Process().memory_info().vms + (100 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 60 << 20 < int(done.stdout) <= 100 << 20
    assert free_memory() > 0


def _area(tile: tuple[int, int]) -> int:
    """Pixels of a window of the halo 16."""
    return (tile[0] + 32) * (tile[1] + 32)


def test_tiles_shrink_with_the_free_memory_down_to_a_least(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((2000, 3000, 3), np.uint8)
    areas = []
    for free in (64 << 30, 800 << 20, 200 << 20, 1 << 20):
        monkeypatch.setattr("agsr.engines.tile_choice.free_memory", lambda free=free: free)
        areas.append(_area(TileChoice(Repeat(), "auto", 16).of([image])[0]))
    assert 0.9 * AUTO_AREA < areas[0] <= 316**2  # the window of a square tile
    assert areas[-1] == (32 + 32) ** 2
    assert areas[-1] < areas[2] < areas[1] < areas[0]
    small = np.zeros((250, 250, 3), np.uint8)  # there is no room for it whole
    assert TileChoice(Repeat(), "auto", 16).of([small])[0] == (32, 32)


def test_a_backend_tells_how_large_tiles_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.engines.tile_choice.free_memory", lambda: 64 << 30)
    backend = Repeat()
    backend.tile_area *= 2
    tile, _ = TileChoice(backend, "auto", 16).of([np.zeros((2000, 3000, 3), np.uint8)])
    assert 1.9 * AUTO_AREA < _area(tile) < 2.3 * AUTO_AREA


def test_what_a_runtime_keeps_does_not_shrink_the_next_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.zeros((2000, 1000, 3), np.uint8)
    choice, backend = TileChoice(Repeat(), "auto", 16), Repeat()
    free = 900 << 20
    monkeypatch.setattr("agsr.engines.tile_choice.free_memory", lambda: free)
    first, _ = choice.of([image])
    free -= _area(first) * backend.bytes_per_pixel
    assert choice.of([image])[0] == first
    free = 100 << 20  # another program has taken it
    assert _area(choice.of([image])[0]) < _area(first)


def test_tiles_are_chosen_by_the_memory_of_the_gpu() -> None:
    class OnGpu(Repeat):
        def free_memory(self) -> int:
            return 300 << 20

    tile, _ = TileChoice(OnGpu(), "auto", 16).of([np.zeros((2000, 3000, 3), np.uint8)])
    assert (32 + 32) ** 2 < _area(tile) < 0.7 * AUTO_AREA


def test_onnxruntime_on_cuda_asks_the_layer_that_is_there(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    cuda.memory_left = 12345
    with OrtBackend(onnx_file(1)) as backend:
        assert backend.free_memory() is None
        monkeypatch.setattr(backend, "_memory", "cuda")
        monkeypatch.setattr(ort_backend, "open_cuda", lambda: cuda)
        assert backend.free_memory() == 12345
        assert cuda.depth == 0

        def absent() -> FakeCuda:
            raise BackendError("no GPU")

        monkeypatch.setattr(ort_backend, "open_cuda", absent)
        assert backend.free_memory() is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_files_do_not_depend_on_the_bands(
    suffix: str, dtype: type, colour: bool, alpha: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.png._SHARE_BYTES", 2000)
    monkeypatch.setattr("agsr.tiff._STRIP_BYTES", 2000)
    picture = _picture(60, 31, colour, alpha, dtype)
    whole = encode(picture, suffix, "a")
    for rows in (1, 7, 59):
        stream = io.BytesIO()
        write_encoded(in_stripes(picture, rows), stream, suffix, "a")
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
    monkeypatch.setattr("agsr.tiff._LARGEST", 1000)
    monkeypatch.setattr("agsr.tiff._STRIP_BYTES", 2000)
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
    sizing = Sizing(scale=scale)
    whole = Upscaler(backend=Repeat(), tile=0).picture(picture, sizing=sizing)
    upscaler = Upscaler(backend=Repeat(), tile=16, halo=4)
    stripes = upscaler.stripes(picture, sizing=sizing)
    bands = list(stripes.bands)
    assert len(bands) > 1 or shape[0] == 1
    assert np.array_equal(np.concatenate([b.pixels for b in bands]), whole.pixels)
    alphas = [b.alpha for b in bands if b.alpha is not None]
    assert np.array_equal(np.concatenate(alphas), whole.alpha)  # type: ignore[arg-type]
    assert (stripes.height, stripes.width) == whole.pixels.shape[:2]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(32, 40), (63, 80), (64, 79), (1, 1)])
def test_shrinking_in_bands_is_pillows_along_rows_and_then_columns(
    size: tuple[int, int], dtype: type
) -> None:
    picture = _picture(64, 80, colour=False, alpha=False, dtype=dtype)
    result = shrunk(picture, *size)
    for rows in (1, 5, 33):
        banded = gathered(shrunk_stripes(in_stripes(picture, rows), *size))
        assert np.array_equal(banded.pixels, result.pixels)
    narrow = Image.fromarray(picture.pixels.astype(np.float32)).resize(
        (size[1], 64), Image.Resampling.BICUBIC
    )
    small = np.asarray(narrow.resize(size[::-1], Image.Resampling.BICUBIC))
    expected = np.floor(small.clip(0, np.iinfo(dtype).max) + np.float32(0.5))
    assert np.abs(expected - result.pixels).max() <= (0 if dtype is np.uint8 else 1)


def test_memory_that_runs_out_half_way_costs_only_the_rows_below() -> None:
    class Scarce(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if len(self.shapes) > 5 and lr.shape[2] > 30:
                raise MemoryError
            return super()._run(lr)

    picture = _picture(100, 90, colour=True, alpha=True, dtype=np.uint8)
    scarce = Scarce()
    bands = list(Upscaler(backend=scarce, tile=32, halo=3).stripes(picture).bands)
    whole = Upscaler(backend=Repeat(), tile=0).picture(picture)
    assert len({shape[2] for shape in scarce.shapes}) == 2
    assert np.array_equal(np.concatenate([band.pixels for band in bands]), whole.pixels)
    alphas = [band.alpha for band in bands if band.alpha is not None]
    assert np.array_equal(np.concatenate(alphas), whole.alpha)  # type: ignore[arg-type]


def test_bands_that_are_left_give_the_network_back() -> None:
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=1)
    stripes = upscaler.stripes(Picture(_random((40, 40, 3))), sizing=Sizing(scale=3))
    next(stripes.bands)
    stripes.close()
    assert upscaler(_random((9, 9, 3))).shape == (36, 36, 3)


def test_bands_are_closed_through_whatever_was_made_of_them() -> None:
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=1)
    stripes = upscaler.stripes(Picture(_random((40, 40, 3))))
    next(stripes.bands)
    shrunk_stripes(stripes.mapped(lambda band: band), 50, 50).close()  # which never began
    assert next(stripes.bands, None) is None
    assert upscaler(_random((9, 9, 3))).shape == (36, 36, 3)


def _full(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("call", ["array", "file"])
def test_a_result_without_room_gives_the_network_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    upscaler = Upscaler(backend=Repeat(), tile=8, halo=1)
    monkeypatch.setattr("agsr.picture._empty", _full)
    monkeypatch.setattr("agsr.encode.samples_of", _full)
    shapes: list[tuple[int, ...]] = []

    def use() -> None:
        try:
            if call == "array":
                upscaler(_random((40, 40, 3)))
            else:
                stripes = upscaler.stripes(Picture(_random((40, 40, 3))))
                write_stripes(stripes, tmp_path / "a.jpg")
        except MemoryError:  # its traceback keeps what made the bands
            shapes.append(upscaler(_random((1, 2, 3))).shape)

    using = threading.Thread(target=use, daemon=True)
    using.start()
    using.join(20)
    assert not using.is_alive()
    assert shapes == [(4, 8, 3)]


def test_a_handover_waits_for_its_user_and_tells_of_errors() -> None:
    hand: Handover[int] = Handover()
    taken: list[int] = []
    made: list[int] = []

    def use() -> None:
        with pytest.raises(ImageError, match="broken"):
            taken.extend(hand)

    for value in range(5):
        if value == 1:
            user = threading.Thread(target=use)
            assert made == [0]
            user.start()
        assert hand.put(value)
        made.append(value)
    hand.end(ImageError("broken"))
    user.join(10)
    hand.leave()
    assert not hand.put(9)
    assert not user.is_alive()


def test_a_writer_that_fails_stops_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agsr.image.write_encoded", disk_full)
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


def test_results_without_room_are_refused_before_they_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (2000, 2000)).save(tmp_path / "a.png")
    monkeypatch.setattr(room, "free_memory", lambda: 150 << 20)
    backend = Repeat()
    (outcome,) = process(
        Upscaler(backend=backend), plan([tmp_path / "a.png"], tmp_path / "b.jpg"), InferOptions()
    )
    assert outcome.error is not None
    for told in ("8000x8000", " bytes of memory as JPEG", f"{150 << 20} are free", "PNG or TIFF"):
        assert told in outcome.error
    assert not backend.shapes


def test_memory_is_asked_for_again_once_the_last_results_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stripes = in_stripes(Picture(np.zeros((8000, 8000), np.uint8)))
    free = [0]
    monkeypatch.setattr(room, "free_memory", lambda: free[0])
    room.check_memory("a", ".bmp", stripes, lambda: free.append(free.pop() + (1 << 40)))
    free[0] = 0
    with pytest.raises(ImageError, match="0 are free"):
        room.check_memory("a", ".webp", stripes)
    room.check_memory("a", ".webp", in_stripes(Picture(np.zeros((99, 99), np.uint8))))


def test_full_disks_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stripes = in_stripes(Picture(np.zeros((1000, 1000, 3), np.uint16)))
    target = tmp_path / "to" / "be" / "a.png"
    for free, kind in ((1 << 40, None), (2_000_000, "warned"), (1000, "refused")):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        caplog.clear()
        if kind == "refused":
            with pytest.raises(ImageError, match=r"5813 bytes at least, and 1000 are free"):
                room.check_disk(target, ".png", stripes)
        else:
            room.check_disk(target, ".png", stripes)
            assert ("may have 3000000 bytes" in caplog.text) == (kind == "warned")
    assert FORMATS[".bmp"].stored_bytes(stripes) == 3_000_000


LIMITED = """
import resource, sys, psutil
from pathlib import Path
import cv2
from PIL import Image
from stubs import Repeat
from agsr.engines.jobs import plan
from agsr.engines.pipeline import InferOptions, process
from agsr.engines.upscaler import Upscaler
limit = psutil.Process().memory_info().vms + (110 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
source, target = map(Path, sys.argv[1:])
for outcome in process(Upscaler(backend=Repeat()), plan([source], target), InferOptions()):
    print(outcome.error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(("suffix", "kept"), [(".png", True), (".tif", True), (".jpg", False)])
def test_a_result_larger_than_the_memory_comes_out_right(
    tmp_path: Path, suffix: str, kept: bool
) -> None:
    """8000x6400x3 are 154 MB, and work at it takes more; the process may take 110."""
    row = np.arange(2000, dtype=np.uint16)[:, None] * (1, 3, 7)
    pixels = (np.arange(1600)[:, None, None] // 10 + row // 5).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment |= {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    target = tmp_path / f"b{suffix}"
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a.png"), str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if not kept:
        assert "8000x6400 pixels takes 2" in done.stdout
        assert "use PNG or TIFF" in done.stdout
        assert not target.exists()
        return
    assert done.stdout == "None\n", done.stdout + done.stderr
    if suffix == ".tif":
        found = tifffile.imread(target)
    else:
        with Image.open(target) as image:
            found = np.asarray(image)
    assert found.shape == (6400, 8000, 3)
    for phase in range(16):
        assert np.array_equal(found[phase // 4 :: 4, phase % 4 :: 4], pixels)
