from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agsr.tiling import (
    AUTO_AREA,
    AUTO_SMALLEST,
    DEFAULT_HALO,
    MemoryBudget,
    auto_tile,
    largest_tile,
    spans,
    windows,
)

LENGTH, TILE, HALO = st.integers(1, 400), st.integers(0, 90), st.integers(0, 50)


@given(LENGTH, TILE, HALO)
def test_cores_cover_every_pixel_once_with_a_full_halo(length: int, tile: int, halo: int) -> None:
    parts = list(spans(length, tile, halo))
    kept = [i for part in parts for i in range(part.core_start, part.core_stop)]
    assert kept == list(range(length))
    for part in parts:
        assert 0 <= part.start <= part.core_start < part.core_stop <= part.stop <= length
        assert part.start == 0 or part.core_start - part.start >= halo
        assert part.stop == length or part.stop - part.core_stop >= halo


@given(LENGTH, TILE, HALO)
def test_windows_of_an_axis_have_one_size_within_the_limit(
    length: int, tile: int, halo: int
) -> None:
    sizes = {part.stop - part.start for part in spans(length, tile, halo)}
    assert len(sizes) == 1
    assert tile == 0 or sizes.pop() <= tile + 2 * halo


@given(st.integers(20, 400), st.integers(20, 200), st.integers(0, 40), st.sampled_from([1, 8, 16]))
def test_windows_of_the_largest_tile_are_accepted(
    length: int, largest: int, halo: int, align: int
) -> None:
    tile = largest_tile(largest, halo, align)
    for smaller in {tile, tile // 2, 1} if tile > 0 else ():
        parts = list(spans(length, max(1, smaller), halo, align))
        assert len(parts) == 1 or max(part.stop - part.start for part in parts) <= largest
        assert all(part.start % align == 0 for part in parts)


def test_windows_are_all_pairs_of_spans() -> None:
    covered = np.zeros((100, 70), int)
    for w in windows(100, 70, (30, 20), 4):
        covered[
            w.rows.core_start : w.rows.core_stop, w.columns.core_start : w.columns.core_stop
        ] += 1
    assert (covered == 1).all()


def test_small_images_are_not_cut_by_auto() -> None:
    side = math.isqrt(AUTO_AREA) + 2 * DEFAULT_HALO
    assert auto_tile(side, side) == (0, 0)
    assert auto_tile(side + 1, side) != (0, 0)


def test_auto_leaves_a_short_axis_whole() -> None:
    """A cut along it would compute a halo on both of its sides for nothing."""
    assert auto_tile(375, 500, halo=16) == (0, 234)
    assert auto_tile(500, 375, halo=16) == (234, 0)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 160), st.integers(2, 200_000))
def test_auto_stays_within_its_area_and_the_budget(
    height: int, width: int, halo: int, pixels: int
) -> None:
    budget = MemoryBudget(free=pixels * 1000, pixel=1000, row=0)
    tile = auto_tile(height, width, budget, halo)
    window = next(windows(height, width, tile, halo))
    computed = window.rows.stop * window.columns.stop
    most = min((math.isqrt(AUTO_AREA) + 2 * halo) ** 2, pixels)
    assert computed <= max(most, (AUTO_SMALLEST + 2 * halo) ** 2)
    assert (tile == (0, 0)) >= (height * width <= most)  # what fits is not cut


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 160))
def test_auto_computes_no_more_than_square_tiles_would(height: int, width: int, halo: int) -> None:
    side = math.isqrt(AUTO_AREA)
    chosen, square = (
        sum(
            (w.rows.stop - w.rows.start) * (w.columns.stop - w.columns.start)
            for w in windows(height, width, tile, halo)
        )
        for tile in (auto_tile(height, width, halo=halo), (side, side))
    )
    assert chosen <= 1.01 * square  # shares are rounded up


@pytest.mark.parametrize("bad", [(0, 5, 4, 1), (5, 0, 4, 1), (5, 5, -1, 1), (5, 5, 4, -1)])
def test_impossible_sizes_are_rejected(bad: tuple[int, int, int, int]) -> None:
    height, width, tile, halo = bad
    with pytest.raises(ValueError, match="out of range"):
        list(windows(height, width, (tile, tile), halo))
