"""The measured halo of networks whose receptive field is unknown, and the tiles cut by it."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stubs import Repeat

from agsr import Upscaler
from agsr.backend import Batch
from agsr.contract import SizeRule, Tiling
from agsr.engines.community import halo, measurements
from agsr.engines.community.halo import CONTEXTS, cached_halo, find_halo, measure_halo
from agsr.engines.community.measurements import Subject
from agsr.engines.tile_policy import TilePolicy
from agsr.errors import BackendError
from agsr.tiling import DEFAULT_HALO


class Blurred(Repeat):
    """Averages so many pixels to each side, then repeats: its receptive field is known to us."""

    def __init__(self, radius: int, weights_hash: str = "", tiling: Tiling = "supported") -> None:
        super().__init__()
        self._radius = radius
        self.info = replace(
            self.info, receptive_radius=None, weights_hash=weights_hash, tiling=tiling
        )

    def _run(self, lr: Batch) -> Batch:
        far = ((0, 0), (0, 0), (0, 0), (self._radius, self._radius))
        padded = np.pad(lr, far, mode="edge")
        steps = range(2 * self._radius + 1)
        mean = sum(padded[..., step : step + lr.shape[3]] for step in steps)
        return super()._run((np.asarray(mean) / len(steps)).astype(np.float32))


class Global(Blurred):
    """Subtracts the mean of all it is given."""

    def _run(self, lr: Batch) -> Batch:
        return super()._run(lr - lr.mean(axis=(2, 3), keepdims=True) + np.float32(0.5))


@pytest.mark.parametrize("radius", [3, 7, 15, 40])
def test_smallest_halo_that_covers_the_receptive_field_is_found(radius: int) -> None:
    expected = next(found for found in CONTEXTS if found >= radius)
    measured = measure_halo(Blurred(radius))
    assert measured.halo == expected
    assert measured.is_exact


def test_a_network_that_sees_everything_has_no_exact_halo() -> None:
    measured = measure_halo(Global(0))
    assert not measured.is_exact
    assert measured.difference > 1


def test_a_small_largest_input_limits_what_is_measured() -> None:
    backend = Blurred(3)
    backend.info = replace(backend.info, largest=(64, 64))
    assert measure_halo(backend).halo == 4
    assert max(max(shape) for shape in backend.shapes) <= 64
    backend.info = replace(backend.info, largest=(20, 20))
    with pytest.raises(BackendError, match="at most 20x20 pixels, too few to measure a halo"):
        measure_halo(backend)


def test_a_measured_halo_is_cached_by_all_that_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A halo found by torch may not fit an export for one size, nor another precision."""
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    first, again = Blurred(7, "a"), Blurred(7, "a")
    assert find_halo(first) == find_halo(again) == cached_halo(Subject.of(first))
    assert again.shapes == []
    half, aligned, fixed, turned, other = others = [Blurred(7, "a") for _ in range(5)]
    half.info = replace(half.info, precision="fp16")
    aligned.tile_align = 48
    fixed.sizes, fixed.info = SizeRule(fixed=(64, 64)), replace(fixed.info, largest=(64, 64))
    turned.info = replace(turned.info, ensemble=8)
    other.info = replace(other.info, weights_hash="b")
    for backend in others:
        assert cached_halo(Subject.of(backend)) is None
        assert find_halo(backend).halo == 8
        assert backend.shapes
    assert len(list((tmp_path / "halos").iterdir())) == 6


@pytest.mark.parametrize("entry", ['{"halo": 5, "difference": 0}', '{"halo": 4}', "{"])
def test_a_damaged_entry_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    found = find_halo(Blurred(7, "a"))
    (path,) = (tmp_path / "halos").iterdir()
    path.write_text(entry)
    assert cached_halo(Subject.of(Blurred(7, "a"))) is None
    assert find_halo(Blurred(7, "a")) == found


def test_the_longest_unused_measurements_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    monkeypatch.setattr(measurements, "MAX_ENTRIES", 2)
    for number, name in enumerate("abc"):
        find_halo(Blurred(3, name))
        for path in (tmp_path / "halos").iterdir():
            if path.stat().st_mtime > 1000:
                os.utime(path, (number, number))
    found = [cached_halo(Subject.of(Blurred(3, name))) is not None for name in "abc"]
    assert found == [False, True, True]


def test_only_cut_pictures_are_measured() -> None:
    backend = Blurred(7)
    small, large = (np.zeros((side, side, 3), np.uint8) for side in (64, 200))
    with Upscaler(backend=backend, tile=100) as upscaler:
        upscaler(small)
        assert len(backend.shapes) == 1
        expected = TilePolicy(backend, 100, "auto").tiling_for([large])
        assert expected == ((100, 100), 8)


def test_tiles_with_the_measured_halo_equal_the_whole_picture() -> None:
    picture = (halo.picture()[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    whole = Upscaler(backend=Blurred(20), tile=0)(picture)
    tiled = Upscaler(backend=Blurred(20), tile=64)(picture)
    np.testing.assert_allclose(tiled, whole, atol=1)


def test_exact_is_refused_where_no_halo_is() -> None:
    large = np.zeros((200, 200, 3), np.uint8)
    with pytest.raises(BackendError, match="has no halo that equals the whole image: the best is"):
        TilePolicy(Global(0), 64, "exact").tiling_for([large])
    assert TilePolicy(Blurred(3), 64, "exact").tiling_for([large]) == ((64, 64), 4)


def test_inexact_tiles_are_as_large_as_memory_allows_and_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Global(0)
    monkeypatch.setattr(backend, "free_memory", lambda: backend.bytes_per_pixel * 900 * 900)
    policy = TilePolicy(backend, "auto", "auto")
    large = np.zeros((1000, 1000, 3), np.uint8)
    with caplog.at_level(logging.WARNING, logger="agsr"):
        tile, _ = policy.tiling_for([large])
    assert (tile[0] or 1000) * (tile[1] or 1000) > 600 * 600
    assert "not exactly that of the whole image, by" in caplog.text
    policy.tiling_for([large])
    assert caplog.text.count("not exactly that") == 1


def test_discouraged_tiles_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    policy = TilePolicy(Blurred(3, tiling="discouraged"), 64, 8)
    policy.tiling_for([np.zeros((100, 100, 3), np.uint8)])
    assert "looks at more of a picture than a tile shows" in caplog.text


def test_a_network_that_tiles_by_itself_is_never_cut(caplog: pytest.LogCaptureFixture) -> None:
    backend = Blurred(0, tiling="internal")
    large = np.zeros((500, 500, 3), np.uint8)
    assert TilePolicy(backend, "auto", "auto").tiling_for([large]) == ((0, 0), DEFAULT_HALO)
    assert TilePolicy(backend, 64, "auto").tiling_for([large])[0] == (0, 0)
    assert "never cut" in caplog.text
    backend.info = replace(backend.info, largest=(400, 400))
    with pytest.raises(BackendError, match="can't be cut, and accepts at most 400x400"):
        TilePolicy(backend, "auto", "auto").tiling_for([large])


def test_a_network_that_tiles_by_itself_is_not_cut_when_memory_runs_out() -> None:
    class Full(Blurred):
        def _run(self, lr: Batch) -> Batch:
            self.shapes.append(lr.shape)
            raise MemoryError("full")

    backend = Full(0, tiling="internal")
    with pytest.raises(MemoryError), Upscaler(backend=backend) as upscaler:
        upscaler(np.zeros((100, 100, 3), np.uint8))
    assert len(backend.shapes) == 1


def test_tiles_start_at_aligned_rows_and_columns() -> None:
    backend = Blurred(3)
    backend.tile_align = 16
    picture = (halo.picture()[0, :, :100, :100].transpose(1, 2, 0) * 255).astype(np.uint8)
    whole = Upscaler(backend=Blurred(3), tile=0)(picture)
    np.testing.assert_array_equal(Upscaler(backend=backend, tile=24)(picture), whole)
    assert all(side % 16 in (0, 4) for shape in backend.shapes[-4:] for side in shape[2:])
