"""Tiles as large as is fast, and as the memory that is free allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Repeat
from fake_gpu import FakeCuda

from agsr.engines.runtimes import session_device
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.session_device import SessionDevice
from agsr.engines.tile_policy import TilePolicy
from agsr.errors import BackendError
from agsr.tiling import AUTO_AREA, windows


def _area(tile: tuple[int, int]) -> int:
    """Pixels of a window of the halo 16."""
    return (tile[0] + 32) * (tile[1] + 32)


def test_tiles_shrink_with_the_free_memory_down_to_a_least(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((2000, 3000, 3), np.uint8)
    areas = []
    for free in (64 << 30, 800 << 20, 200 << 20, 1 << 20):
        monkeypatch.setattr("agsr.engines.tile_policy.free_memory", lambda free=free: free)
        areas.append(_area(TilePolicy(Repeat(), "auto", 16).tiling_for([image])[0]))
    assert 0.9 * AUTO_AREA < areas[0] <= 316**2  # the window of a square tile
    assert areas[-1] == (32 + 32) ** 2
    assert areas[-1] < areas[2] < areas[1] < areas[0]
    small = np.zeros((250, 250, 3), np.uint8)  # there is no room for it whole
    assert TilePolicy(Repeat(), "auto", 16).tiling_for([small])[0] == (32, 32)


def test_the_backend_limits_the_tile_area(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.engines.tile_policy.free_memory", lambda: 64 << 30)
    backend = Repeat()
    backend.tile_area *= 2
    tile, _ = TilePolicy(backend, "auto", 16).tiling_for([np.zeros((2000, 3000, 3), np.uint8)])
    assert 1.9 * AUTO_AREA < _area(tile) < 2.3 * AUTO_AREA


def test_memory_that_a_runtime_reuses_does_not_shrink_the_next_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.zeros((2000, 1000, 3), np.uint8)
    policy, backend = TilePolicy(Repeat(), "auto", 16), Repeat()
    free = 900 << 20
    monkeypatch.setattr("agsr.engines.tile_policy.free_memory", lambda: free)
    first, _ = policy.tiling_for([image])
    free -= _area(first) * backend.bytes_per_pixel
    assert policy.tiling_for([image])[0] == first
    free = 100 << 20  # another program has taken it
    assert _area(policy.tiling_for([image])[0]) < _area(first)


def test_tiles_are_chosen_by_the_memory_of_the_gpu() -> None:
    class OnGpu(Repeat):
        def free_memory(self) -> int:
            return 300 << 20

    tile, _ = TilePolicy(OnGpu(), "auto", 16).tiling_for([np.zeros((2000, 3000, 3), np.uint8)])
    assert (32 + 32) ** 2 < _area(tile) < 0.7 * AUTO_AREA


def test_onnxruntime_on_cuda_asks_the_layer_that_is_there(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    cuda.memory_left = 12345
    monkeypatch.setattr(session_device, "open_cuda", lambda _: cuda)
    with OrtBackend(onnx_file(1)) as backend:
        assert backend.free_memory() is None
        monkeypatch.setattr(backend, "_device", SessionDevice("cuda"))
        assert backend.free_memory() == 12345
        assert cuda.depth == 0


@pytest.mark.parametrize("there", [True, False])
def test_the_layer_is_opened_once(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    opened: list[int] = []

    def open_cuda(index: int) -> FakeCuda:
        opened.append(index)
        if not there:
            raise BackendError("no GPU")
        return FakeCuda()

    monkeypatch.setattr(session_device, "open_cuda", open_cuda)
    with OrtBackend(onnx_file(1)) as backend:
        monkeypatch.setattr(backend, "_device", SessionDevice("cuda"))
        assert [backend.free_memory() is not None for _ in range(2)] == [there, there]
    assert opened == [0]


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((300, 900), 0, (68, 0)),  # only rows exceed the limit
        ((90, 1500), 0, (0, 968)),
        ((300, 900), 500, (68, 500)),
        ((300, 1500), 0, (68, 968)),
    ],
)
def test_each_axis_is_limited_by_its_own_largest_side(
    size: tuple[int, int], asked: int, expected: tuple[int, int]
) -> None:
    backend = Repeat()
    backend.info = replace(backend.info, largest=(100, 1000))
    tile, _ = TilePolicy(backend, asked, 16).tiling_for([np.zeros((*size, 3), np.uint8)])
    assert tile == expected
    for window in windows(*size, tile, 16):
        assert window.rows.stop - window.rows.start <= 100
        assert window.columns.stop - window.columns.start <= 1000


def test_a_side_too_short_for_the_halo_is_used_whole() -> None:
    backend = Repeat()
    backend.info = replace(backend.info, largest=(20, 1000))
    image = np.zeros((20, 1500, 3), np.uint8)
    assert TilePolicy(backend, 400, 16).tiling_for([image])[0] == (0, 400)
    with pytest.raises(BackendError, match="at most 1000x20 pixels, too few for a halo of 16"):
        TilePolicy(backend, 400, 16).tiling_for([np.zeros((21, 1500, 3), np.uint8)])


def test_one_warning_is_logged_for_tiles_that_are_mostly_halo(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    policy = TilePolicy(Repeat(), 1, 16)
    for _ in range(2):
        policy.tiling_for([image])
    (message,) = caplog.messages
    assert message == (
        "tiles of 1x1 pixels with a halo of 16 compute each pixel 1089 times; tiles of 128 compute "
        "it 1.6 times"
    )
    caplog.clear()
    for tile, halo in ((32, 16), (1, 0), ("auto", 16), (0, 16)):
        TilePolicy(Repeat(), tile, halo).tiling_for([image])
    TilePolicy(Repeat(), 1, 16).tiling_for([image[:1, :1]])  # which is not cut
    assert not caplog.messages
