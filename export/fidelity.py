"""What reduced precision costs: PSNR-Y against the original photographs, beside fp32's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agsr.backend import Batch
from agsr.contract import Precision
from agsr.datasets.pairs import Image8, Pair
from agsr.errors import ExportError
from agsr.metrics import psnr_y

LARGEST_LOSS = 0.1
"""Loss of PSNR-Y beyond which an export is refused, dB."""

_HINTS: dict[Precision, str] = {
    "int8": "calibrate on photographs like those it is for, with --calibrate, or use fp16",
    "bf16": "use fp16 or fp32",
    "fp16": "use bf16 or fp32",
}

Run = Callable[[Batch], Batch]
"""A network."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """PSNR-Y of an export and of fp32, mean over the same photographs, dB."""

    source: str
    """Where the photographs are from."""
    images: int
    """How many there were."""
    psnr_fp32: float
    """Of torch in fp32."""
    psnr: float
    """Of the exported file."""
    loss: float
    """How much lower it is; negative where it is higher."""


def measure(
    exact: Run, reduced: Run, photos: Sequence[Pair], source: str, precision: Precision
) -> Fidelity:
    """Score a file in reduced precision beside fp32, by the field's protocol.

    Raises:
        ExportError: It loses more than `LARGEST_LOSS`.
    """
    psnr_fp32, psnr = (
        float(np.mean([psnr_y(_upscaled(run, photo), photo.hr) for photo in photos]))
        for run in (exact, reduced)
    )
    loss = psnr_fp32 - psnr if psnr != psnr_fp32 else 0.0  # two exact networks have infinite PSNR
    if not loss <= LARGEST_LOSS:
        raise ExportError(
            f"{precision} loses {loss:.2f} dB of PSNR-Y on {len(photos)} photographs of {source} "
            f"({psnr:.2f}, fp32 {psnr_fp32:.2f}), allowed {LARGEST_LOSS}; nothing was written; "
            f"{_HINTS[precision]}"
        )
    return Fidelity(source=source, images=len(photos), psnr_fp32=psnr_fp32, psnr=psnr, loss=loss)


def as_batch(pair: Pair) -> Batch:
    """The LR image as the network takes it, ``(1, 3, H, W)``."""
    return np.ascontiguousarray(pair.lr.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def _upscaled(run: Run, photo: Pair) -> Image8:
    """``(4H, 4W, 3)`` uint8, rounded half-up."""
    levels = np.clip(run(as_batch(photo))[0], 0, 1) * 255 + 0.5
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
