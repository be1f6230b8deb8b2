"""Networks of others that accept certain sizes: padding, tiles, halo and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_graphs import node, repeat, repeated, repeating, save

from agsr.backend import Batch
from agsr.engines.foreign import ForeignBackend, Hints
from agsr.engines.tile_policy import TilePolicy
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError
from agsr.export.verify import sample_batch
from agsr.tiling import windows

pytestmark = pytest.mark.processor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


@pytest.fixture
def lr() -> Batch:
    """Real pixels that are whole levels of 255."""
    return sample_batch(2, 19, 26)


@pytest.mark.parametrize(("size", "largest"), [((16, 24), (16, 24)), (("h", 16), (16, 16))])
def test_fixed_sizes_bound_the_tiles(
    path: Path, size: tuple[Any, Any], largest: tuple[int, int]
) -> None:
    backend = ForeignBackend(repeating(path, size=size, kind="uint8"))
    assert backend.info.largest == backend.io_spec.size == largest
    for shape in ((50, 70, 3), (5, 3, 3), (1, 1, 3), (16, 16)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        result = Upscaler(backend=backend, halo=3)(image)
        assert np.array_equal(result, image.repeat(4, axis=0).repeat(4, axis=1))
    with pytest.raises(BackendError, match=r"accepts \d\dx16 pixels, got 9x17; cut the image"):
        backend.upscale(np.zeros((1, 3, 17, 9), np.float32))
    with pytest.raises(
        BackendError,
        match=r"foreign\.onnx accepts .* halo of 16 on both sides; use a smaller --halo$",
    ):
        Upscaler(backend=backend, halo=16)(np.zeros((50, 70, 3), np.uint8))


def test_the_default_halo_fits_into_a_small_fixed_size(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    upscaler = Upscaler(str(repeating(path, size=(32, 32), scale=1)))
    for _ in range(2):
        assert np.array_equal(upscaler(image), image)
    assert caplog.text.count("tiles have one of 8; tiles are blended") == 1


def test_tiles_fill_a_fixed_size(path: Path) -> None:
    backend = ForeignBackend(repeating(path, size=(512, 512), scale=1))
    policy = TilePolicy(backend, "auto", 16)
    picture = np.zeros((3000, 4000, 3), np.uint8)
    tile, halo = policy.tiling_for([picture])
    assert (tile, halo) == ((480, 480), 16)
    assert len(list(windows(3000, 4000, tile, halo, align=backend.tile_align))) == 7 * 9


def test_tiles_of_a_network_with_blocks_equal_the_whole(path: Path) -> None:
    nodes = [  # the mean of every block
        node("AveragePool", ["picture"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        repeat("means"),
    ]
    save(path, nodes, scales=np.array([1, 1, 8, 8], np.float32))
    image = np.random.default_rng(0).integers(0, 256, (75, 61, 3), np.uint8)
    backend = ForeignBackend(path, Hints(multiple=8))
    assert backend.sizes.multiple == 8
    whole = Upscaler(backend=backend, tile=0)(image)
    for tile in (10, 17, 24):
        assert np.array_equal(Upscaler(backend=backend, tile=tile, halo=3)(image), whole)


def test_memory_is_estimated_for_the_size_that_is_computed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ForeignBackend(repeating(path, scale=1), Hints(square=True))
    free = 4 * 400**2 * backend.bytes_per_pixel // 3
    monkeypatch.setattr("agsr.engines.tile_policy.free_memory", lambda: free)
    tile, halo = TilePolicy(backend, "auto", 16).tiling_for([np.zeros((60, 1600, 3), np.uint8)])
    cut = list(windows(60, 1600, tile, halo, align=backend.tile_align))
    sides = [(w.rows.stop - w.rows.start, w.columns.stop - w.columns.start) for w in cut]
    assert len(cut) > 1
    assert max(backend.sizes.padded(*side)[0] for side in sides) <= 400


def test_working_memory_grows_with_the_scale(path: Path) -> None:
    small, large = (ForeignBackend(repeating(path, scale=scale)) for scale in (1, 16))
    assert large.bytes_per_pixel - small.bytes_per_pixel >= 3 * 12 * (16**2 - 1)


@pytest.mark.parametrize("multiple", [2, 8, 16, 64])
def test_sizes_that_must_be_multiples_are_padded_and_cut(
    path: Path, lr: Batch, multiple: int
) -> None:
    nodes = [  # into squares and back, as window attention does; other sizes are refused
        node("SpaceToDepth", ["picture"], ["squares"], blocksize=multiple),
        node("DepthToSpace", ["squares"], ["same"], blocksize=multiple),
        repeat("same"),
    ]
    save(path, nodes)
    backend = ForeignBackend(path)
    assert backend.io_spec.rule.multiple == multiple
    for crop in (lr, lr[..., :1, :1]):
        np.testing.assert_array_equal(backend.upscale(crop), repeated(crop))
    assert ForeignBackend(path, Hints(multiple=3 * multiple)).io_spec.rule.multiple == 3 * multiple
