"""Memory per pixel, measured on a tile that the network runs, and the tiles that follow from it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stubs import Repeat

from agsr.backend import Batch
from agsr.contract import SizeRule
from agsr.engines.community.measurements import Subject, place_of, read
from agsr.engines.community.tile_memory import find_bytes_per_pixel, measure_bytes_per_pixel
from agsr.engines.tile_policy import TilePolicy
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError
from agsr.tiling import windows


class Hungry(Repeat):
    """Writes so many bytes per pixel while it runs."""

    def __init__(self, hunger: int, weights_hash: str = "") -> None:
        super().__init__()
        self._hunger = hunger
        self.info = replace(self.info, receptive_radius=None, weights_hash=weights_hash)

    def _run(self, lr: Batch) -> Batch:
        scratch = np.ones(lr.shape[2] * lr.shape[3] * self._hunger, np.uint8)
        return super()._run(lr * scratch[0])


@pytest.mark.parametrize("hunger", [4_000, 20_000])
def test_memory_used_while_the_network_runs_is_measured(hunger: int) -> None:
    assert 0.9 * hunger < measure_bytes_per_pixel(Hungry(hunger)) < 2 * hunger + 2_000


def test_what_was_measured_is_cached_per_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    first, again, other = (Hungry(20_000, "a") for _ in range(3))
    other.info = replace(other.info, name="openvino")
    assert find_bytes_per_pixel(first, alone=True) == find_bytes_per_pixel(again, alone=True)
    assert again.shapes == []
    find_bytes_per_pixel(other, alone=True)
    assert other.shapes
    lean = Hungry(1, "b")  # has run before: its runtime may reuse memory
    assert find_bytes_per_pixel(lean, at_least=90_000, alone=True) == 90_000
    assert not read("memory", Subject.of(lean, place_of(lean.info)))


def test_what_is_measured_beside_other_threads_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may allocate meanwhile; so an `Upscaler` measures a network when it opens it."""
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    monkeypatch.setattr("agsr.engines.upscaler.open_backend", lambda *_, **__: Hungry(1, "a"))
    large = np.zeros((600, 800, 3), np.uint8)
    subject = Subject.of(Hungry(1, "a"), place_of(Hungry(1).info))
    TilePolicy(Hungry(1, "a"), "auto", 8).tiling_for([large])
    Upscaler("x", work=100).close()  # small pictures need no tiles
    assert not read("memory", subject)
    with Upscaler("x", work=large.size, halo=8):
        assert read("memory", subject)
    cached = Hungry(1, "a")
    TilePolicy(cached, "auto", 8).tiling_for([large])
    assert cached.shapes == []


class Picky(Hungry):
    """Fails on smaller pictures, which it doesn't declare."""

    def __init__(self, least: int, error: type[Exception] = BackendError) -> None:
        super().__init__(20_000)
        self._least, self._error = least, error

    def _run(self, lr: Batch) -> Batch:
        if min(lr.shape[2:]) < self._least:
            raise self._error("too small")
        return super()._run(lr)


@pytest.mark.parametrize("least", [32, 64])
def test_networks_that_fail_on_the_smallest_tiles_are_measured(least: int) -> None:
    assert 18_000 < measure_bytes_per_pixel(Picky(least)) < 42_000


@pytest.mark.parametrize("error", [BackendError, MemoryError])
def test_a_network_that_cannot_be_measured_still_runs(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="agsr"):
        policy = TilePolicy(Picky(200, error), "auto", 8)
        for _ in range(2):
            assert policy.tiling_for([np.zeros((600, 800, 3), np.uint8)])
    assert caplog.text.count("memory not measured: too small") == 1


@pytest.mark.parametrize("size", [{"tiling": "internal"}, {"sizes": SizeRule(fixed=(96, 96))}])
def test_networks_that_tiles_of_one_size_fit_are_not_measured(
    size: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.engines.tile_policy.find_bytes_per_pixel", None)
    backend = Hungry(1)
    backend.sizes = size.get("sizes", backend.sizes)
    backend.info = replace(backend.info, tiling=size.get("tiling", "supported"))
    TilePolicy(backend, "auto", 8).tiling_for([np.zeros((600, 800, 3), np.uint8)])


def test_tiles_follow_the_memory_of_this_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its largest windows fit into the free memory, whatever the constants of other networks."""
    free = 200 << 20
    monkeypatch.setattr("agsr.engines.tile_policy.free_memory", lambda: free)
    picture = np.zeros((600, 800, 3), np.uint8)
    pixels = []
    for hunger in (4_000, 30_000):
        backend = Hungry(hunger)
        tile, halo = TilePolicy(backend, "auto", 8).tiling_for([picture])
        window = next(windows(*picture.shape[:2], tile, halo))
        pixels.append(window.rows.stop * window.columns.stop)
        assert pixels[-1] * hunger < free
    assert pixels[0] > 2 * pixels[1]


def test_small_pictures_and_known_networks_cost_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agsr.engines.tile_policy.find_bytes_per_pixel", None)
    TilePolicy(Hungry(1), "auto", 8).tiling_for([np.zeros((200, 200, 3), np.uint8)])
    TilePolicy(Repeat(), "auto", 8).tiling_for([np.zeros((600, 800, 3), np.uint8)])
    on_gpu = Hungry(1)
    on_gpu.info = replace(on_gpu.info, device="cuda:0")
    TilePolicy(on_gpu, "auto", 8).tiling_for([np.zeros((600, 800, 3), np.uint8)])
