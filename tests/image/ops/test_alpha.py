"""An upscaled alpha channel stays within what is around it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from agsr.image.ops.alpha import bounded


def test_flat_areas_stay_what_they_are_and_edges_stay_soft() -> None:
    small = np.zeros((6, 8), np.uint8)
    small[:, 4:] = 255
    ringing = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    found = bounded(ringing, small)
    # Centres of the original lie at 4n + 1.5: between 13.5 and 17.5 both sides are near.
    assert (found[:, :14] == 0).all()
    assert (found[:, 18:] == 255).all()
    assert np.array_equal(found[:, 14:18], ringing[:, 14:18])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_bilinear_enlargement_is_never_changed(kind: type) -> None:
    small = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(kind)
    large = cv2.resize(small, (28, 36), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(bounded(large, small), large)
    assert bounded(large, small).dtype == kind


def test_one_pixel_bounds_everything() -> None:
    assert (bounded(np.full((4, 4), 9, np.uint8), np.full((1, 1), 7, np.uint8)) == 7).all()
