"""Measure the loss of reduced precision: PSNR-Y against the original photographs, and fp32's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agsr.backend import Batch
from agsr.contract import SCALE, Precision
from agsr.datasets.pairs import Image8, Pair
from agsr.errors import ExportError
from agsr.metrics import psnr_y

MAX_LOSS = 0.1
"""Largest accepted loss of PSNR-Y, dB."""

_HINTS: dict[Precision, str] = {
    "int8": "calibrate on photographs like those it is for, with --calibrate, or use fp16",
    "bf16": "use fp16 or fp32",
    "fp16": "use bf16 or fp32",
}

Run = Callable[[Batch], Batch]
"""Runs a network on a batch."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Mean PSNR-Y of an export and of fp32 over the same photographs, dB."""

    source: str
    """Folder or name of the photographs."""
    images: int
    """Number of photographs."""
    psnr_fp32: float
    """PSNR-Y of torch in fp32."""
    psnr: float
    """PSNR-Y of the exported file."""
    loss: float
    """``psnr_fp32 - psnr``; negative if the export is better."""


def measure(
    exact: Run,
    reduced: Run,
    photos: Sequence[Pair],
    source: str,
    precision: Precision,
    scale: int = SCALE,
) -> Fidelity:
    """Compare a file in reduced precision with fp32, by the field's protocol.

    As many pixels as the scale are excluded at the border; none for ×1.

    Raises:
        ExportError: It loses more than `MAX_LOSS`.
    """
    border = scale if scale > 1 else 0
    psnr_fp32, psnr = (
        float(np.mean([psnr_y(upscaled(run, photo), photo.hr, border) for photo in photos]))
        for run in (exact, reduced)
    )
    loss = psnr_fp32 - psnr if psnr != psnr_fp32 else 0.0  # two exact networks have infinite PSNR
    if not loss <= MAX_LOSS:
        raise ExportError(
            f"{precision} loses {loss:.2f} dB of PSNR-Y on {len(photos)} photographs of {source} "
            f"({psnr:.2f}, fp32 {psnr_fp32:.2f}), allowed {MAX_LOSS}; nothing was written; "
            f"{_HINTS[precision]}"
        )
    return Fidelity(source=source, images=len(photos), psnr_fp32=psnr_fp32, psnr=psnr, loss=loss)


def as_batch(pair: Pair) -> Batch:
    """Return the LR image as the network's input, ``(1, 3, H, W)``."""
    return np.ascontiguousarray(pair.lr.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def upscaled(run: Run, photo: Pair) -> Image8:
    """Run a network on the LR image: ``(sH, sW, 3)`` uint8, rounded half-up."""
    levels = np.clip(run(as_batch(photo))[0], 0, 1) * 255 + 0.5
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
