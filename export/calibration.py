"""Calibration photographs for int8: half set the ranges of values, the others measure the loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agsr.bicubic import downscale
from agsr.contract import INPUT_NAME
from agsr.datasets.pairs import Pair, load_pairs
from agsr.errors import DatasetError, ExportError, ExportRequestError, UnknownSetError
from agsr.export.fidelity import as_batch
from agsr.system.optional_import import require

MAX_PHOTOS = 48
"""Photographs that are used; from a larger folder, this many evenly spaced ones."""

FEW_PHOTOS = 12
"""Below this number a warning is logged: the ranges may not hold for other photographs."""

LARGEST_SIDE = 512
"""Longer sides are center-cropped to this, HR pixels: ranges need variety, not area."""

SMALLEST_SIDE = 32
"""Photographs with a shorter side are skipped, HR pixels."""

PERCENTILE = 99.999
"""Percentage of the values inside a range. Including the rare outliers would reduce the precision
of all others: on photographs, that costs more PSNR than anything else."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """Photographs of a folder, in two disjoint halves."""

    source: str
    """The folder."""
    measured: tuple[Pair, ...]
    """Photographs that set the ranges."""
    held_out: tuple[Pair, ...]
    """Photographs that the loss is measured on."""

    def at_scale(self, scale: int) -> Calibration:
        """Return the same photographs for a network of another scale; ×1 gets the HR images."""
        halves = (self.measured, self.held_out)
        measured, held_out = (tuple(_at_scale(pair, scale) for pair in half) for half in halves)
        return Calibration(self.source, measured, held_out)

    def magnitudes(self, model: Any, names: Sequence[str]) -> dict[str, float]:
        """Measure the ranges of tensors; see `magnitudes`."""
        return magnitudes(model, names, self.measured)


def read_calibration(folder: Path) -> Calibration:
    """Read the photographs of a folder; LR images are made by MATLAB's bicubic.

    Raises:
        ExportRequestError: The folder is missing.
        ExportError: It has fewer than two photographs.
    """
    try:
        pairs = load_pairs([folder], min_side=SMALLEST_SIDE)
    except UnknownSetError as error:
        raise ExportRequestError(f"{error}; {_ADVICE}") from None
    except DatasetError as error:
        raise ExportError(f"int8 has nothing to calibrate on: {error}; {_ADVICE}") from None
    if len(pairs) < 2:
        raise ExportError(f"{folder}: one photograph; int8 needs two or more; {_ADVICE}")
    if len(pairs) < FEW_PHOTOS:
        _log.warning(
            "%s: int8 is calibrated on only %d photographs; use twenty or more like those it is "
            "for, so that the ranges hold for others, too",
            *(folder, len(pairs)),
        )
    spaced = pairs[:: -(-len(pairs) // MAX_PHOTOS)]
    cropped = tuple(map(_center_crop, spaced))
    return Calibration(str(folder), cropped[::2], cropped[1::2])


_ADVICE = "name a folder of twenty or more photographs with --calibrate"


def magnitudes(model: Any, names: Sequence[str], photos: Sequence[Pair]) -> dict[str, float]:
    """Measure the largest magnitude of tensors, up to `PERCENTILE`, over all photographs.

    Args:
        model: fp32 graph, as a message of onnx or of `agsr.assembly.messages`.
        names: Names of its tensors.
        photos: Photographs to run it on.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", extra="cpu", purpose="Exporting int8")
    watched = type(model)()
    watched.CopyFrom(model)
    for name in names:
        watched.graph.output.add().name = name
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(names, 0.0)
    for photo in photos:
        values = session.run(list(names), {INPUT_NAME: as_batch(photo)})
        for name, found in zip(names, values, strict=True):
            largest[name] = max(largest[name], float(np.percentile(np.abs(found), PERCENTILE)))
    return largest


def _center_crop(pair: Pair) -> Pair:
    top, left = (max(side - LARGEST_SIDE, 0) // 2 for side in pair.hr.shape[:2])
    hr = np.ascontiguousarray(pair.hr[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE])
    return Pair(hr=hr, lr=downscale(hr))


def _at_scale(pair: Pair, scale: int) -> Pair:
    height, width = (side // scale * scale for side in pair.hr.shape[:2])
    hr = np.ascontiguousarray(pair.hr[:height, :width])
    return Pair(hr=hr, lr=hr if scale == 1 else downscale(hr, scale))
