"""Tiles of networks that look at everything: blended, with steps within the reported bound."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import Repeat
from numpy.typing import NDArray

from agsr import Upscaler
from agsr.backend import Batch
from agsr.contract import SizeRule, Tiling
from agsr.engines.feather import Ramp, Seams, ramps
from agsr.engines.tile_policy import TilePolicy
from agsr.image.picture import Picture
from agsr.tiling import spans

SCALE = 2


class Global(Repeat):
    """Adds to every pixel what only the whole input shows: its mean, times a number."""

    def __init__(self, tiling: Tiling = "supported", gain: float = 0.2) -> None:
        super().__init__()
        self._gain = np.float32(gain)
        self.info = replace(self.info, scale=SCALE, receptive_radius=None, tiling=tiling)

    def _run(self, lr: Batch) -> Batch:
        self.shapes.append(lr.shape)
        sr = lr + self._gain * lr.mean(axis=(2, 3), keepdims=True)
        return sr.repeat(SCALE, axis=2).repeat(SCALE, axis=3)


def _ramp_picture(height: int, width: int) -> NDArray[np.float32]:
    """Colours that grow to the lower right, so that tiles have different means."""
    down, across = np.linspace(0, 0.4, height), np.linspace(0, 0.4, width)
    levels = np.stack(
        [down[:, None] + across, 0.5 - down[:, None] + 0 * across, down[:, None] * across], 2
    )
    return levels.astype(np.float32)


def _repeated(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def _steps(pixels: NDArray[np.float32]) -> float:
    """Return the largest step between neighbours, levels of 255."""
    return 255 * max(float(np.abs(np.diff(pixels, axis=axis)).max()) for axis in (0, 1))


@pytest.mark.parametrize("align", [1, 16])
@pytest.mark.parametrize("size", [(150, 170), (61, 300), (300, 47), (97, 98)])
def test_no_step_at_a_tiles_border_exceeds_the_reported_bound(
    size: tuple[int, int], align: int
) -> None:
    """What the tiles add to the network's own, smooth part has no larger step anywhere."""
    picture, backend = _ramp_picture(*size), Global()
    backend.tile_align = align
    upscaler = Upscaler(backend=backend, tile=64, halo="auto")
    large = upscaler(picture)
    added = large - _repeated(picture)
    seams = upscaler.seams
    assert seams.difference > 1
    assert 0 < seams.step < seams.difference / 30
    assert _steps(added) <= seams.step + 1e-3


def test_hard_tiles_of_the_same_network_have_larger_steps() -> None:
    picture = _ramp_picture(150, 170)
    upscaler = Upscaler(backend=Global(), tile=64, halo=0)
    added = upscaler(picture) - _repeated(picture)
    assert _steps(added) > 5
    assert upscaler.seams == Seams()


def test_exact_networks_are_not_blended() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (150, 130, 3), np.uint8)
    upscaler = Upscaler(backend=Repeat(), tile=32, halo=4)
    np.testing.assert_array_equal(upscaler(pixels), pixels.repeat(4, axis=0).repeat(4, axis=1))
    assert upscaler.seams == Seams()


def test_a_discouraged_network_is_blended_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upscaler = Upscaler(backend=Global("discouraged"), tile=32, halo=8)
    with caplog.at_level(logging.INFO, logger="agsr"):
        for _ in range(2):
            upscaler(_ramp_picture(70, 90))
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    (message,) = [record.getMessage() for record in warned]
    assert "tiles are blended, and the result is not exactly that of the whole image" in message
    assert (
        caplog.text.count(f"the step at a tile's border is at most {upscaler.seams.step:.2g}") == 2
    )


def test_an_internal_network_is_neither_cut_nor_blended() -> None:
    backend = Global("internal")
    upscaler = Upscaler(backend=backend, tile=32)
    upscaler(_ramp_picture(70, 90))
    assert [shape[2:] for shape in backend.shapes] == [(70, 90)]
    assert upscaler.seams == Seams()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [True, False])
def test_bands_of_blended_tiles_arrive_in_order_and_join(dtype: type, grey: bool) -> None:
    """Colour and alpha side by side; a constant picture shows lost or repeated rows."""
    levels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (140, 75, 3), dtype)
    levels = levels[..., :1].repeat(3, axis=2) if grey else levels
    alpha = levels[..., 1]
    backend = Global("discouraged", gain=0)
    upscaler = Upscaler(backend=backend, tile=32, halo=8, separate_alpha=True)
    bands = list(upscaler.row_bands(Picture(levels, alpha)).bands)
    assert len(bands) > 3
    pixels = np.concatenate([band.pixels for band in bands])
    np.testing.assert_array_equal(pixels, _repeated(levels))
    alphas = np.concatenate([band.alpha for band in bands if band.alpha is not None])
    np.testing.assert_array_equal(alphas, _repeated(alpha))


def test_memory_that_runs_out_half_way_leaves_no_step() -> None:
    """The rows that wait are blended with those of the smaller tiles."""

    class Scarce(Global):
        def _run(self, lr: Batch) -> Batch:
            if len(self.shapes) > 7 and lr.shape[2] > 60:
                self.shapes.append(lr.shape)
                raise MemoryError
            return super()._run(lr)

    backend, picture = Scarce("discouraged"), _ramp_picture(230, 120)
    upscaler = Upscaler(backend=backend, tile=48, halo=16)
    added = upscaler(picture) - _repeated(picture)
    assert len({shape[2] for shape in backend.shapes}) == 2
    assert 0 < upscaler.seams.step < 3
    assert _steps(added) <= upscaler.seams.step + 1e-3


def test_ensembles_are_blended() -> None:
    picture = _ramp_picture(100, 80)
    upscaler = Upscaler(backend=Global("discouraged"), tile=48, halo=16, tta=True)
    added = upscaler(picture) - _repeated(picture)
    assert upscaler.seams.difference > 1
    assert _steps(added) <= upscaler.seams.step + 1e-3


def test_tiles_of_a_fixed_size_are_blended() -> None:
    backend = Global("discouraged")
    backend.sizes = SizeRule(fixed=(64, 48))
    backend.info = replace(backend.info, largest=(64, 48))
    picture = _ramp_picture(130, 100)
    upscaler = Upscaler(backend=backend)
    added = upscaler(picture) - _repeated(picture)
    assert {shape[2:] for shape in backend.shapes} == {(64, 48)}
    assert _steps(added) <= upscaler.seams.step + 1e-3


def test_blended_tiles_are_as_large_as_memory_allows_with_little_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The less fits, the narrower the overlap, so that each pixel is computed twice at most."""
    monkeypatch.setattr("agsr.engines.tile_policy.find_bytes_per_pixel", lambda *_, **__: 10_000)
    large, areas, halos = np.zeros((3000, 4000, 3), np.uint8), [], []
    for free in (8 << 30, 2 << 30, 1 << 30):
        monkeypatch.setattr("agsr.engines.tile_policy.free_memory", lambda free=free: free)
        (height, width), halo = TilePolicy(Global(), "auto", "auto").tiling_for([large])
        areas.append((height or 3000) * (width or 4000))
        halos.append(halo)
        assert (height + 2 * halo) * (width + 2 * halo) <= 2.1 * height * width
    assert areas == sorted(areas, reverse=True)
    assert halos[0] > halos[-1]


def test_ramps_meet_no_others() -> None:
    for length, tile, halo, align in ((100, 20, 30, 1), (500, 32, 64, 16), (77, 3, 2, 1)):
        found = ramps(list(spans(length, tile, halo, align)))
        assert found[-1] == Ramp(length, length)
        assert all(a.start < a.stop <= b.start for a, b in pairwise(found))
