from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agsr.tiling import AUTO_TILE, AUTO_WHOLE, auto_tile, spans, windows

LENGTH, TILE, HALO = st.integers(1, 400), st.integers(0, 90), st.integers(0, 50)


@given(LENGTH, TILE, HALO)
def test_kept_parts_cover_every_pixel_once_with_a_full_halo(
    length: int, tile: int, halo: int
) -> None:
    parts = list(spans(length, tile, halo))
    kept = [i for part in parts for i in range(part.keep_start, part.keep_stop)]
    assert kept == list(range(length))
    for part in parts:
        assert 0 <= part.start <= part.keep_start < part.keep_stop <= part.stop <= length
        assert part.start == 0 or part.keep_start - part.start >= halo
        assert part.stop == length or part.stop - part.keep_stop >= halo


@given(LENGTH, TILE, HALO)
def test_windows_of_an_axis_have_one_size_within_the_limit(
    length: int, tile: int, halo: int
) -> None:
    sizes = {part.stop - part.start for part in spans(length, tile, halo)}
    assert len(sizes) == 1
    assert tile == 0 or sizes.pop() <= tile + 2 * halo


def test_windows_are_all_pairs_of_spans() -> None:
    covered = np.zeros((100, 70), int)
    for w in windows(100, 70, 30, 4):
        covered[
            w.rows.keep_start : w.rows.keep_stop, w.columns.keep_start : w.columns.keep_stop
        ] += 1
    assert (covered == 1).all()


def test_small_images_are_not_cut_by_auto() -> None:
    assert auto_tile(AUTO_WHOLE, AUTO_WHOLE) == 0
    assert auto_tile(AUTO_WHOLE, AUTO_WHOLE + 1) == AUTO_TILE


@pytest.mark.parametrize("bad", [(0, 5, 4, 1), (5, 0, 4, 1), (5, 5, -1, 1), (5, 5, 4, -1)])
def test_impossible_sizes_are_refused(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        list(windows(*bad))
