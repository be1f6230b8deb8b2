from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from conftest import PHOTO
from numpy.typing import NDArray

from agsr.bicubic import downscale
from agsr.datasets import degradation
from agsr.datasets.degradation import degrade
from agsr.image import read_rgb

Image8 = NDArray[np.uint8]
Only = Callable[[str], None]

FAULTS = ("SAVED_BEFORE", "BLUR", "SHARPENING", "NOISE", "COMPRESSION")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Only:
    """Applies one fault always, and no other."""

    def choose(fault: str) -> None:
        monkeypatch.setattr(degradation, "CLEAN", 0)
        for name in FAULTS:
            monkeypatch.setattr(degradation, name, float(name == fault))

    return choose


def _photo() -> Image8:
    return np.ascontiguousarray(read_rgb(PHOTO)[:96, :128])


def _many(hr: Image8, count: int = 60) -> list[Image8]:
    return [degrade(hr, np.random.default_rng(seed)) for seed in range(count)]


def _sharpness(image: Image8) -> float:
    return float(cv2.Laplacian(image, cv2.CV_32F).std())


def test_a_state_of_chance_gives_one_image() -> None:
    hr = _photo()
    first, again, other = (degrade(hr, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.shape == (24, 32, 3)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()
    assert (hr == _photo()).all()  # untouched


def test_sides_that_would_be_squeezed_are_rejected() -> None:
    for seed in range(5):
        with pytest.raises(ValueError, match=r"\(97, 96\); crop it to multiples of 4"):
            degrade(np.zeros((97, 96, 3), np.uint8), np.random.default_rng(seed))


def test_some_stay_as_the_field_makes_them() -> None:
    clean = downscale(_photo())
    share = np.mean([(lr == clean).all() for lr in _many(_photo(), 300)])
    assert share == pytest.approx(degradation.CLEAN, abs=0.05)


def test_pixels_stay_in_their_place() -> None:
    """On a slope, a shift of one LR pixel would be a difference of more than six levels."""
    row = np.linspace(20, 229, 128)
    for hr in (np.tile(row, (96, 1)), np.tile(row[:96, None], (1, 128))):
        hr = np.repeat(np.rint(hr).astype(np.uint8)[..., None], 3, axis=2)
        inner = np.s_[4:-4, 4:-4]
        shift = [lr[inner].astype(float) - downscale(hr)[inner] for lr in _many(hr, 100)]
        assert abs(np.mean(shift)) < 0.15
        assert np.abs(np.mean(shift, axis=0)).mean() < 1


def test_colours_stay_what_they_are() -> None:
    mean = np.mean([lr.mean(axis=(0, 1)) for lr in _many(_photo(), 200)], axis=0)
    assert np.abs(mean - _photo().mean(axis=(0, 1))).max() < 1


def test_blur_softens_and_sharpening_sharpens(only: Only) -> None:
    clean = _sharpness(downscale(_photo()))
    only("nothing")  # filters differ in sharpness, too
    plain = np.mean([_sharpness(lr) for lr in _many(_photo())])
    assert plain == pytest.approx(clean, rel=0.2)
    only("BLUR")
    assert np.mean([_sharpness(lr) for lr in _many(_photo())]) < 0.85 * plain
    only("SHARPENING")
    assert np.mean([_sharpness(lr) for lr in _many(_photo())]) > 1.3 * plain


def test_noise_has_the_documented_strengths(only: Only) -> None:
    only("NOISE")
    flat = np.full((128, 128, 3), 128, np.uint8)
    noises = [lr.astype(float) - 128 for lr in _many(flat, 100)]
    strengths = np.array([noise.std() for noise in noises])
    assert 0.3 < strengths.min() < 2
    assert 8 < strengths.max() < 1.1 * degradation.MAX_NOISE
    grey = np.array([np.ptp(noise, axis=2).max() == 0 for noise in noises])
    assert 0.2 < grey.mean() < 0.6


def test_compression_leaves_blocks_and_spares_flat_grey(only: Only) -> None:
    only("COMPRESSION")
    grey = np.full((128, 128, 3), 128, np.uint8)
    assert max(np.abs(lr.astype(int) - 128).max() for lr in _many(grey, 20)) <= 1
    plain = downscale(_photo()).astype(float)
    losses = [np.abs(lr - plain).mean() for lr in _many(_photo())]
    assert min(losses) > 0
    assert max(losses) > 3 * min(losses)  # qualities differ


def test_an_image_saved_before_passes_through_another_size(
    only: Only, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    usual = degradation._resize_and_save

    def watched(image: Image8, height: int, width: int, random: np.random.Generator) -> Image8:
        sizes.append((height, width))
        return usual(image, height, width, random)

    monkeypatch.setattr(degradation, "_resize_and_save", watched)
    only("SAVED_BEFORE")
    _many(_photo(), 40)
    assert sizes[1::2] == [(24, 32)] * 40
    between = np.array(sizes[::2])
    assert between.min(axis=0).tolist() >= [24, 32]
    assert between.max(axis=0).tolist() <= [96, 128]
    assert len({tuple(size) for size in between.tolist()}) > 20
