from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import Repeat
from numpy.typing import NDArray
from PIL import Image

import agsr
from agsr.backend import Batch
from agsr.engines.runtimes.torch_backend import TorchBackend
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError
from agsr.image.encode import on_white
from agsr.image.metadata import Metadata
from agsr.image.ops.output_size import OutputSize
from agsr.image.ops.padding import Border
from agsr.image.picture import Picture


def _repeated(image: NDArray[np.generic]) -> NDArray[np.generic]:
    return image.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(13, 17, 3), (13, 17), (1, 1, 3)])
@pytest.mark.parametrize("tile", [0, 5])
def test_types_and_shapes_are_preserved(dtype: type, shape: tuple[int, ...], tile: int) -> None:
    random = np.random.default_rng(0)
    if dtype is np.float32:
        image = random.random(shape, dtype=np.float32)
    else:
        image = random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    result = Upscaler(backend=Repeat(), tile=tile, halo=2)(image)
    assert result.dtype == dtype
    if len(shape) == 3:
        assert np.array_equal(result, _repeated(image))
    else:  # the grey weights add up to one within float rounding
        assert np.allclose(result, _repeated(image), rtol=1e-5, atol=0)


def test_results_are_clipped_not_wrapped() -> None:
    class Loud(Repeat):
        def _run(self, lr: Batch) -> Batch:
            return (super()._run(lr) - np.float32(0.5)) * 4

    image = np.array([[[0, 127, 255]]], np.uint8)
    assert Upscaler(backend=Loud())(image)[0, 0].tolist() == [0, 0, 255]


def test_tiles_bound_what_the_backend_sees_and_report_progress() -> None:
    backend, shares = Repeat(), []
    image = np.zeros((60, 100, 3), np.uint8)
    Upscaler(backend=backend, tile=16, halo=4)(image, shares.append)
    assert max(max(shape[2:]) for shape in backend.shapes) <= 24
    assert len(set(backend.shapes)) == 1
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_halo_exact_is_the_receptive_radius() -> None:
    backend = Repeat()
    Upscaler(backend=backend, tile=10, halo="exact")(np.zeros((40, 16, 3), np.uint8))
    assert max(shape[2] for shape in backend.shapes) <= 10 + 2 * 3


@pytest.mark.parametrize("steps", [1, 4])
def test_tiled_equals_whole_with_the_exact_halo(
    checkpoint_file: Path, photo: NDArray[np.uint8], steps: int
) -> None:
    backend = TorchBackend(checkpoint_file, steps=steps)
    image = photo[:101, :90].astype(np.float32) / 255
    whole = Upscaler(backend=backend, tile=0)(image)
    tiled = Upscaler(backend=backend, tile=20, halo="exact")(image)
    assert np.abs(whole - tiled).max() <= 1e-5  # rounding: other sizes, other kernels
    cut = Upscaler(backend=backend, tile=20, halo=0)(image)
    assert np.abs(whole - cut).max() > 1e-3  # the halo is what makes them equal


@pytest.mark.parametrize("steps", [1, 4])
def test_shipped_weights_tile_exactly_and_by_default_within_a_level(
    photo: NDArray[np.uint8], steps: int
) -> None:
    image = photo.astype(np.float32) / 255
    with Upscaler("psnr", backend="ort", steps=steps, tile=0) as upscaler:
        whole = upscaler(image)
        backend = upscaler._backend
        exact = Upscaler(backend=backend, tile=40, halo="exact")(image)
        usual = Upscaler(backend=backend, tile=40)(image)
    assert np.abs(whole - exact).max() <= 1e-5
    assert np.abs(whole - usual).max() <= 1 / 255


def test_alpha_is_upscaled_and_constant_alpha_stays_constant() -> None:
    backend = Repeat()
    pixels = np.zeros((6, 7, 3), np.uint8)
    alpha = np.arange(42, dtype=np.uint8).reshape(6, 7) * 6
    metadata = Metadata(icc=b"profile", dpi=(72, 72))
    result = Upscaler(backend=backend).picture(Picture(pixels, alpha, metadata))
    assert result.alpha is not None
    assert np.array_equal(result.alpha, _repeated(alpha))
    assert result.metadata == metadata
    before = len(backend.shapes)
    result = Upscaler(backend=backend).picture(Picture(pixels, np.full((6, 7), 9, np.uint8)))
    assert result.alpha is not None
    assert np.unique(result.alpha).tolist() == [9]
    assert len(backend.shapes) == before + 1  # no second run for what is constant


def test_hidden_colour_does_not_bleed_into_visible_edges(checkpoint_file: Path) -> None:
    """What lies under transparent pixels is arbitrary: it must not change the visible ones."""
    alpha = np.zeros((12, 16), np.uint8)
    alpha[:, 8:] = 255
    results = []
    for hidden in (0, 90, 255):
        pixels = np.full((12, 16, 3), hidden, np.uint8)
        pixels[:, 8:] = (200, 40, 10)
        upscaler = Upscaler(str(checkpoint_file), steps=2)
        results.append(upscaler.picture(Picture(pixels, alpha)).pixels[:, 32:])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("steps", [1, 4])
def test_edges_of_alpha_get_no_rim(steps: int) -> None:
    """A white disc above transparent black, on a white page, must stay nearly invisible."""
    y, x = np.mgrid[:40, :40] - 19.5
    alpha = np.clip((13 - np.hypot(y, x)) * 128 + 128, 0, 255).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, 255, 0).repeat(3, axis=2).astype(np.uint8)
    with Upscaler("psnr", steps=steps) as upscaler:
        result = upscaler.picture(Picture(pixels, alpha))
    assert result.alpha is not None
    assert on_white(result.pixels, result.alpha).min() >= 252


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pillow_images_become_pillow_images(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(42, dtype=np.uint16).reshape(6, 7) * 1500)
    else:
        image = Image.linear_gradient("L").resize((7, 6)).convert("RGB").convert(mode)
    image.info["dpi"] = (300, 300)
    large = Upscaler(backend=Repeat())(image)
    shown = {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(mode, mode)
    assert (large.mode, large.size) == (shown, (28, 24))
    assert large.info["dpi"] == (300, 300)
    expected = image if mode == shown else image.convert(shown)
    expected_large = expected.resize((28, 24), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(large).astype(int) - np.asarray(expected_large)).max() <= 3


@pytest.mark.usefixtures("all_cpus")
def test_threads_take_turns_at_the_network() -> None:
    class Alone(Repeat):
        inside = 0

        def _run(self, lr: Batch) -> Batch:
            self.inside += 1
            time.sleep(0.002)
            assert self.inside == 1
            self.inside -= 1
            return super()._run(lr)

    upscaler = Upscaler(backend=Alone(), tile=8, halo=0)
    images = [np.full((20, 20, 3), level, np.uint8) for level in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for image, large in zip(images, pool.map(upscaler, images), strict=True):
            assert np.array_equal(large, _repeated(image))


def test_smaller_tiles_are_tried_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    class Scarce(Repeat):
        def _run(self, lr: Batch) -> Batch:
            if lr.shape[2] * lr.shape[3] > 40 * 40:
                raise MemoryError
            return super()._run(lr)

    image = np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)
    large = Upscaler(backend=Scarce(), tile=0, halo=4)(image)
    assert np.array_equal(large, _repeated(image))
    assert "out of memory; trying tiles of 65x75 pixels" in caplog.text
    assert "out of memory; trying tiles of 16x18 pixels" in caplog.text


def test_a_retry_begins_without_the_memory_of_the_failed_attempt() -> None:
    activations: list[weakref.ref[Batch]] = []

    class Scarce(Repeat):
        def _run(self, lr: Batch) -> Batch:
            assert not any(made() is not None for made in activations)
            activation = lr + 1
            if lr.shape[2] > 40:
                activations.append(weakref.ref(activation))
                raise MemoryError
            return super()._run(lr)

    image = np.zeros((150, 150, 3), np.uint8)
    assert Upscaler(backend=Scarce(), tile=0, halo=4)(image).shape == (600, 600, 3)
    assert len(activations) > 1


def test_memory_that_never_suffices_is_an_error_in_the_end() -> None:
    class Without(Repeat):
        def _run(self, lr: Batch) -> Batch:
            raise MemoryError(lr.shape)

    with pytest.raises(MemoryError):
        Upscaler(backend=Without())(np.zeros((100, 100, 3), np.uint8))


def test_only_an_own_backend_is_closed(
    onnx_file: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Repeat()
    with Upscaler(backend=backend):
        pass
    assert backend.closed == 0
    monkeypatch.setattr("agsr.engines.upscaler.open_backend", lambda *_, **__: backend)
    with Upscaler("psnr"):
        pass
    assert backend.closed == 1
    monkeypatch.undo()
    with Upscaler(str(onnx_file(2))) as upscaler:
        assert upscaler.info.steps == 2


def test_bad_tile_and_halo_are_refused() -> None:
    for wrong in ({"tile": -1}, {"tile": "exact"}, {"halo": "none"}, {"halo": -2}):
        with pytest.raises(ValueError, match="expected"):
            Upscaler(backend=Repeat(), **wrong)  # type: ignore[arg-type]


def test_backends_are_held_to_their_contract() -> None:
    class Broken(Repeat):
        answer: Callable[[Batch], Batch]

        def _run(self, lr: Batch) -> Batch:
            return self.answer(super()._run(lr))

    backend, lr = Broken(), np.zeros((1, 3, 4, 5), np.float32)
    for wrong in (lr[0], lr[:, :2], lr.astype(np.float64), lr[:, :, :0]):
        with pytest.raises(BackendError, match="expected float32"):
            backend.upscale(wrong)
    backend.answer = lambda sr: sr[..., 1:]
    with pytest.raises(BackendError, match=r"expected float32 \(1, 3, 16, 20\)"):
        backend.upscale(lr)
    backend.answer = lambda sr: sr * np.float32("nan")
    with pytest.raises(BackendError, match="NaN or infinity in fp32"):
        backend.upscale(lr)


def test_the_package_offers_the_upscaler(photo: NDArray[np.uint8]) -> None:
    assert agsr.Upscaler is Upscaler
    with agsr.Upscaler("psnr", steps=1) as upscaler:
        assert upscaler(photo[:9, :8]).shape == (36, 32, 3)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        agsr.Nothing  # noqa: B018


class Overshooting(Repeat):
    def _run(self, lr: Batch) -> Batch:
        return super()._run(lr) * 0.8 + np.float32(0.1)


@pytest.mark.parametrize("scale", [4, 2.5, 0.5])
@pytest.mark.parametrize("border", [None, "wrap"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_separate_alpha_is_as_two_pictures(
    scale: float, border: Border | None, dtype: type[np.uint8] | type[np.uint16]
) -> None:
    random = np.random.default_rng(0)
    colour = random.integers(0, np.iinfo(dtype).max, (11, 14, 3), dtype, endpoint=True)
    alpha = random.integers(0, np.iinfo(dtype).max, (11, 14), dtype, endpoint=True)
    alpha[:, :8] = 0
    upscaler = Upscaler(backend=Overshooting(), border=border, separate_alpha=True)
    both, of_colour, of_alpha = (
        upscaler.picture(picture, sizing=OutputSize(scale=scale))
        for picture in (Picture(colour, alpha), Picture(colour), Picture(alpha))
    )
    assert np.array_equal(both.pixels, of_colour.pixels)
    assert both.alpha is not None
    assert np.array_equal(both.alpha, of_alpha.pixels)
    assert np.array_equal(
        Upscaler(backend=Overshooting(), separate_alpha=True)(np.dstack([colour, alpha])),
        np.dstack([Upscaler(backend=Overshooting())(plane) for plane in (colour, alpha)]),
    )


def test_alpha_does_not_ring_where_it_is_constant() -> None:
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, 4:] = 255
    picture = Picture(np.full((8, 8, 3), 99, np.uint8), alpha)
    large = Upscaler(backend=Overshooting()).picture(picture).alpha
    assert large is not None
    assert (large[:, :14] == 0).all()
    assert (large[:, 18:] == 255).all()
