"""What bf16 costs: why `auto` may take it where the processor multiplies it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import BF16_BY_OPENVINO

from agsr import Upscaler
from agsr.bench.data.sets import ImageSet, TestImage, find_set
from agsr.engines.ranking import candidates
from agsr.metrics import psnr_y
from agsr.system.cpu import multiplies_bf16

pytestmark = pytest.mark.processor

LARGEST_LOSS = 0.02
"""dB of PSNR-Y that `auto` may lose."""


def _loss(reduced: Upscaler, exact: Upscaler, images: Sequence[TestImage]) -> float:
    """By how much the mean PSNR-Y is lower, dB."""
    scores = [[psnr_y(u(image.lr), image.hr) for image in images] for u in (exact, reduced)]
    return float(np.mean(scores[0]) - np.mean(scores[1]))


@pytest.mark.data
@pytest.mark.skipif(not multiplies_bf16(), reason="no AMX or AVX512-BF16 on this processor")
def test_auto_loses_next_to_nothing_by_bf16(data: Path) -> None:
    chosen = candidates("psnr")[0]
    with Upscaler("psnr") as auto, Upscaler("psnr", precision="fp32") as exact:
        assert (chosen.precision, auto.info.precision, exact.info.precision) == (
            *("bf16", "bf16", "fp32"),
        )
        assert _loss(auto, exact, list(find_set("Set14", data))) <= LARGEST_LOSS


@pytest.mark.data
@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=BF16_BY_OPENVINO)])
def test_bf16_loses_next_to_nothing_on_any_processor(data: Path, backend: str) -> None:
    """Emulated by torch or not, it is the same function; the smallest images, as that is slow."""
    smallest = sorted(find_set("Set14", data).files, key=lambda path: path.stat().st_size)[:3]
    images = list(ImageSet("smallest", tuple(smallest)))
    with (
        Upscaler("psnr", backend=backend, precision="bf16") as reduced,
        Upscaler("psnr", backend="ort") as exact,
    ):
        loss = _loss(reduced, exact, images)
    assert 0 < abs(loss) <= LARGEST_LOSS
