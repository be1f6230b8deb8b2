"""The test-time ensemble: the mean over turns and mirrorings, whatever runs the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import PHOTO, Repeat
from numpy.typing import NDArray
from PIL import Image

from agsr import Upscaler
from agsr.backend import Backend, Batch
from agsr.cli import main
from agsr.contract import SizeRule
from agsr.engines.ensemble import SYMMETRIES, Ensemble, turned, turned_back
from agsr.engines.open import open_backend
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend

LR = np.random.default_rng(0).random((2, 3, 11, 17), np.float32)


@pytest.fixture
def network(onnx_file: Callable[[int], Path]) -> Backend:
    return open_backend("ort", str(onnx_file(2)))


def test_there_are_eight_different_views_and_each_is_undone() -> None:
    views = [turned(LR, number) for number in range(SYMMETRIES)]
    assert len({view.tobytes() for view in views}) == SYMMETRIES
    assert np.array_equal(views[0], LR)
    for number, view in enumerate(views):
        np.testing.assert_array_equal(turned_back(view, number), LR)


def test_the_result_is_the_mean_of_all_views(network: Backend) -> None:
    flips = [lambda a: a, np.flipud, np.fliplr, lambda a: np.flipud(np.fliplr(a))]
    expected = np.zeros((2, 3, 44, 68))
    for batch, planes in enumerate(LR):
        for flip in flips:
            for swap in (False, True):
                view = flip(planes.transpose(1, 2, 0))
                view = view.transpose(1, 0, 2) if swap else view
                sr = network.upscale(np.ascontiguousarray(view.transpose(2, 0, 1)[None]))[0]
                image = sr.transpose(1, 2, 0)
                image = flip(image.transpose(1, 0, 2) if swap else image)
                expected[batch] += image.transpose(2, 0, 1) / 8
    np.testing.assert_allclose(Ensemble(network).upscale(LR), expected, atol=2e-6)


def test_a_turned_input_gives_the_turned_result(network: Backend) -> None:
    ensemble = Ensemble(network)
    whole = ensemble.upscale(LR)
    assert np.abs(network.upscale(turned(LR, 5)) - turned(network.upscale(LR), 5)).max() > 1e-3
    np.testing.assert_allclose(ensemble.upscale(turned(LR, 5)), turned(whole, 5), atol=2e-6)


def test_tiles_equal_the_whole_image_and_the_backend_says_what_runs(network: Backend) -> None:
    image = (LR[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    whole = Upscaler(backend=network, tta=True)
    tiled = Upscaler(backend=network, tta=True, tile=8, halo="exact")
    difference = whole(image).astype(int) - tiled(image)
    assert np.abs(difference).max() <= 1
    assert whole.info.ensemble == SYMMETRIES
    assert whole.info.summary.endswith("fp32, ensemble of 8")
    assert network.info.ensemble == 1


def test_the_backend_closes_with_the_upscaler_that_opened_it(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    monkeypatch.setattr(OrtBackend, "close", lambda self: closed.append(self))
    Upscaler(str(onnx_file(1)), backend="ort", tta=True).close()
    assert len(closed) == 1


class _Failing(Backend):
    """Runs out of memory after three views."""

    def __init__(self, network: Backend) -> None:
        self.info, self._network, self._left = network.info, network, 3

    def _run(self, lr: Batch) -> Batch:
        self._left -= 1
        if self._left < 0:
            raise MemoryError
        return self._network.upscale(lr)


def test_a_failure_in_one_view_is_the_failure_of_the_image(network: Backend) -> None:
    with pytest.raises(MemoryError):
        Ensemble(_Failing(network)).upscale(LR)


def test_turned_windows_fit_a_network_of_limited_size_and_share_its_turn() -> None:
    class Wide(Repeat):
        """Accepts images of at most 8x20 pixels (height, width)."""

        def __init__(self) -> None:
            super().__init__()
            self.info = replace(self.info, largest=(8, 20))

        def _run(self, lr: Batch) -> Batch:
            assert lr.shape[2] <= 8
            assert lr.shape[3] <= 20
            return super()._run(lr)

    wide = Wide()
    upscaler = Upscaler(backend=wide, tta=True, halo=2)
    image = np.arange(30 * 10 * 3).astype(np.uint8).reshape(10, 30, 3)
    np.testing.assert_array_equal(upscaler(image), image.repeat(4, axis=0).repeat(4, axis=1))
    assert Ensemble(wide).turn is wide.turn


def test_tiles_of_a_network_with_blocks_equal_the_whole_image() -> None:
    class Blocks(Repeat):
        """Averages blocks of 4x4 pixels, so that its result depends on where a window starts."""

        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.tile_align = SizeRule(multiple=4), 4

        def _run(self, lr: Batch) -> Batch:
            self.shapes.append(lr.shape)
            batch, channels, height, width = lr.shape
            blocks = lr.reshape(batch, channels, height // 4, 4, width // 4, 4).mean((3, 5))
            return blocks.repeat(16, axis=2).repeat(16, axis=3)

    image = np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8)
    whole = Upscaler(backend=Blocks(), tta=True)(image)
    blocks = Blocks()
    tiled = Upscaler(backend=blocks, tta=True, tile=16, halo=4)(image)
    assert len(blocks.shapes) > 8  # it was cut
    np.testing.assert_array_equal(tiled, whole)


def test_eight_times_the_work_counts_when_a_backend_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def opened(*_: object, **options: object) -> Backend:
        asked.append(options["work"])
        return Repeat()

    monkeypatch.setattr("agsr.engines.upscaler.open_backend", opened)
    for tta in (False, True):
        Upscaler(work=100, tta=tta).close()
    Upscaler(tta=True).close()
    assert asked == [100, 800, None]


def test_a_loaded_backend_can_not_be_given_steps() -> None:
    with pytest.raises(TypeError, match="remove steps"):
        Upscaler(backend=Repeat(), steps=0)


def test_commands_take_it(
    tmp_path: Path, onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = Image.open(PHOTO).resize((40, 30))
    photo.save("a.png")
    weights = str(onnx_file(1))
    done = CliRunner().invoke(main, ["infer", "a.png", "-w", weights, "-b", "ort", "--tta", "-v"])
    assert done.exit_code == 0, done.output
    assert "ensemble of 8" in done.stderr
    pixels: NDArray[np.uint8] = np.asarray(photo)
    with Upscaler(weights, backend="ort", tta=True) as upscaler, Image.open("a_x4.png") as result:
        np.testing.assert_array_equal(np.asarray(result), upscaler(pixels))
