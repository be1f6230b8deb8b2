"""Memory per pixel, measured on a tile that the network runs, and the tiles that follow from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stubs import Repeat

from agsr.backend import Batch
from agsr.engines.community.measurements import Subject, read
from agsr.engines.community.tile_memory import find_bytes_per_pixel, measure_bytes_per_pixel
from agsr.engines.tile_policy import TilePolicy
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
    assert find_bytes_per_pixel(first) == find_bytes_per_pixel(again)
    assert again.shapes == []
    find_bytes_per_pixel(other)
    assert other.shapes
    lean = Hungry(1, "b")  # has run before: its runtime may reuse memory
    assert find_bytes_per_pixel(lean, at_least=90_000) == 90_000
    assert not read("memory", Subject.of(lean, "repeat cpu"))


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
