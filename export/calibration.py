"""Photographs for int8: half of them give the ranges of values, the others tell the loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from agsr.bicubic import downscale
from agsr.contract import INPUT_NAME
from agsr.datasets.pairs import Pair, load_pairs
from agsr.errors import DatasetError, ExportError, ExportRequestError, UnknownSetError
from agsr.export.fidelity import as_batch
from agsr.system.optional_import import require

MOST_PHOTOS = 48
"""Photographs that are used; of a larger folder, as many evenly spaced ones."""

FEW_PHOTOS = 12
"""Fewer are warned of: their ranges may not hold for other photographs."""

LARGEST_SIDE = 512
"""Longer sides are cropped to their middle, HR pixels: ranges need variety, not area."""

SMALLEST_SIDE = 32
"""Photographs with a shorter side are left out, HR pixels."""

PERCENTILE = 99.999
"""Share of the values that a range holds. The rare outliers beyond it would cost all others
precision: on photographs, that costs more PSNR than all else."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """Photographs of a folder, in two halves that share no image."""

    source: str
    """The folder."""
    measured: tuple[Pair, ...]
    """What the ranges of values are taken from."""
    held_out: tuple[Pair, ...]
    """What the loss is measured on."""


def read_calibration(folder: Path) -> Calibration:
    """Read the photographs of a folder; LR images are made by the field's bicubic.

    Raises:
        ExportRequestError: The folder is missing.
        ExportError: It holds fewer than two photographs.
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
            "%s: int8 is calibrated on %d photographs; twenty or more of what it is for give "
            "ranges that hold for others, too",
            *(folder, len(pairs)),
        )
    spaced = pairs[:: -(-len(pairs) // MOST_PHOTOS)]
    cropped = tuple(map(_middle, spaced))
    return Calibration(str(folder), cropped[::2], cropped[1::2])


_ADVICE = "name a folder of twenty or more photographs with --calibrate"


def magnitudes(
    model: onnx.ModelProto, names: Sequence[str], photos: Sequence[Pair]
) -> dict[str, float]:
    """How large the values of tensors get: what `PERCENTILE` of them stay below, of all photos.

    Args:
        model: fp32 graph.
        names: Of its tensors.
        photos: What it is run on.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", extra="cpu", purpose="Exporting int8")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(names, 0.0)
    for photo in photos:
        values = session.run(list(names), {INPUT_NAME: as_batch(photo)})
        for name, found in zip(names, values, strict=True):
            largest[name] = max(largest[name], float(np.percentile(np.abs(found), PERCENTILE)))
    return largest


def _middle(pair: Pair) -> Pair:
    top, left = (max(side - LARGEST_SIDE, 0) // 2 for side in pair.hr.shape[:2])
    hr = np.ascontiguousarray(pair.hr[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE])
    return Pair(hr=hr, lr=downscale(hr))
