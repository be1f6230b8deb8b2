"""Parity check: compare an exported file with its checkpoint in torch fp32.

The shapes differ from the traced one, since a branch on sizes would be exported wrongly without an
error. The pixels are from a photograph, since noise hides errors that structure shows. ONNX Runtime
runs the file; it has no bf16 operators on CPUs, so bf16 runs on ONNX's reference evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from onnx.reference import ReferenceEvaluator

from agsr.backend import Batch
from agsr.bicubic import downscale
from agsr.contract import INPUT_NAME, OUTPUT_NAME, Precision
from agsr.datasets.pairs import Pair
from agsr.errors import ExportError
from agsr.export.fidelity import Run
from agsr.image import read_rgb
from agsr.model.checkpoint import Checkpoint
from agsr.system.optional_import import require

SAMPLE_PHOTO = Path(__file__).parent / "sample.png"
"""A photograph in the public domain, 128x128: NASA portrait of Eileen Collins, downsampled by 4."""

SHAPES = ((1, 1, 1), (1, 1, 37), (1, 37, 1), (1, 24, 32), (1, 31, 45), (2, 17, 64), (1, 128, 128))
"""``(batch, height, width)`` of the inputs that are compared."""

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 4e-3, "bf16": 0.05, "int8": 0.4}
"""Largest difference from torch fp32, in units of the range: 0.03 levels of 255, 1, 13 and 102.
Single pixels may be that far off in bf16 and int8; `agsr.export.fidelity` judges the whole."""


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """Difference between the file and torch for one input shape, in units of the range."""

    shape: tuple[int, int, int]
    """``(batch, height, width)``."""
    largest: float
    """Largest absolute difference."""
    mean: float
    """Mean absolute difference."""


def run_torch(checkpoint: Checkpoint, steps: int) -> Run:
    """Return a function that runs a checkpoint in torch fp32."""
    network = checkpoint.build()

    def run(lr: Batch) -> Batch:
        with torch.inference_mode():
            sr: Batch = network(torch.from_numpy(lr), steps).numpy()
        return sr

    return run


def run_file(path: Path, precision: Precision) -> Run:
    """Return a function that runs an ONNX file on any CPU, whatever its precision."""
    if precision == "bf16":
        session: Any = ReferenceEvaluator(str(path))
    else:
        ort = require("onnxruntime", extra="cpu", purpose="Verifying an export")
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(lr: Batch) -> Batch:
        sr: Batch = session.run([OUTPUT_NAME], {INPUT_NAME: lr})[0]
        return sr

    return run


def verify(
    exact: Run, exported: Run, steps: int, precision: Precision, tolerance: float | None = None
) -> tuple[float, tuple[ParityRow, ...]]:
    """Compare an exported file with torch fp32 at every shape of `SHAPES`.

    Args:
        exact: The checkpoint, see `run_torch`.
        exported: The file, see `run_file`.
        steps: Its time steps, for messages.
        precision: Its arithmetic.
        tolerance: Largest difference, in units of the range; None means `TOLERANCE`.

    Returns:
        The tolerance that was used, and a row per shape.

    Raises:
        ExportError: A value isn't finite or differs by more than the tolerance.
    """
    allowed = TOLERANCE[precision] if tolerance is None else tolerance
    rows = []
    for shape in SHAPES:
        lr = sample_batch(*shape)
        rows.append(compare(shape, exported(lr), exact(lr)))
    worst = max(rows, key=lambda row: row.largest)
    if not worst.largest <= allowed:
        raise ExportError(
            f"{precision}, {steps} steps: at {worst.shape} the file differs from torch by "
            f"{worst.largest:.2e} of the range, allowed {allowed:.2g}; nothing was written"
        )
    return allowed, tuple(rows)


def sample_batch(batch: int, height: int, width: int) -> Batch:
    """Crop the sample photo to a batch of shape ``(batch, 3, height, width)``."""
    photo = cv2.copyMakeBorder(
        read_rgb(SAMPLE_PHOTO), 0, height, 0, width + batch, cv2.BORDER_REFLECT_101
    )
    crops = [photo[24 : 24 + height, 40 + i : 40 + i + width] for i in range(batch)]
    values = np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return np.ascontiguousarray(values)


def sample_pair() -> Pair:
    """Return the sample photo as HR, and its LR image of 32x32."""
    photo = read_rgb(SAMPLE_PHOTO)
    return Pair(hr=photo, lr=downscale(photo))


def compare(shape: tuple[int, int, int], found: Batch, expected: Batch) -> ParityRow:
    """Compare two outputs for an input of this shape.

    Raises:
        ExportError: Their shapes differ.
    """
    if found.shape != expected.shape:
        raise ExportError(f"at {shape} the output is {found.shape}, expected {expected.shape}")
    difference = np.abs(found.astype(np.float64) - expected)
    largest = float(difference.max()) if np.isfinite(difference).all() else float("inf")
    return ParityRow(shape=shape, largest=largest, mean=float(difference.mean()))
