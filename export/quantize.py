"""fp32 graph → int8 graph with explicit Q/DQ pairs, by ONNX Runtime's static quantizer.

Every convolution but the first and the last takes int8 values and int8 weights. Both are symmetric,
and the biases stay float32, because TensorRT parses nothing else. The photographs that the ranges
of values are taken from come from a folder; every second one is held out, to measure the loss on.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from agsr.backend import Batch
from agsr.contract import INPUT_NAME
from agsr.data import Pair, load_pairs
from agsr.errors import DatasetError, ExportError
from agsr.export.fidelity import as_batch
from agsr.optional import require
from agsr.resize import downscale

MOST_PHOTOS = 48
"""Photographs that are used; of a larger folder, as many evenly spaced ones."""

LARGEST_SIDE = 512
"""Longer sides are cropped to their middle, HR pixels: ranges need variety, not area."""

SMALLEST_SIDE = 32
"""Photographs with a shorter side are left out, HR pixels."""

PERCENTILE = 99.999
"""Share of the values that a range holds. The rare outliers beyond it would cost all others
precision: on photographs, twice the loss of PSNR."""


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
        ExportError: The folder is missing or holds fewer than two photographs.
    """
    try:
        pairs = load_pairs([folder], min_side=SMALLEST_SIDE)
    except DatasetError as error:
        raise ExportError(f"int8 has nothing to calibrate on: {error}; {_ADVICE}") from None
    if len(pairs) < 2:
        raise ExportError(f"{folder}: one photograph; int8 needs two or more; {_ADVICE}")
    spaced = pairs[:: -(-len(pairs) // MOST_PHOTOS)]
    cropped = tuple(map(_middle, spaced))
    return Calibration(str(folder), cropped[::2], cropped[1::2])


_ADVICE = "name a folder of photographs with --calibrate"


def quantize(model: onnx.ModelProto, photos: Sequence[Pair]) -> onnx.ModelProto:
    """Quantize the convolutions of a graph.

    Args:
        model: fp32 graph, just exported; it is changed in place.
        photos: What the ranges of values are taken from.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    tools = require("onnxruntime.quantization", extra="cpu", purpose="Exporting int8")
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    # Says that shapes are inferred, which the exporter did; else the quantizer warns of it.
    tools.quant_utils.add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder) / "int8.onnx"
        tools.quantize_static(
            model,
            path,
            _Photos(photos),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            per_channel=True,
            activation_type=tools.QuantType.QInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": 1,  # a photo at a time, so that memory stays bounded
            },
        )
        return onnx.load(path)


class _Photos:
    """The data reader that ONNX Runtime's calibration asks for."""

    def __init__(self, photos: Sequence[Pair]) -> None:
        self._photos = photos
        self.set_range(0, len(photos))

    def __len__(self) -> int:
        return len(self._photos)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._photos[start_index:end_index])

    def get_next(self) -> dict[str, Batch] | None:
        pair = next(self._next, None)
        return None if pair is None else {INPUT_NAME: as_batch(pair)}


def _middle(pair: Pair) -> Pair:
    top, left = (max(side - LARGEST_SIDE, 0) // 2 for side in pair.hr.shape[:2])
    hr = np.ascontiguousarray(pair.hr[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE])
    return Pair(hr=hr, lr=downscale(hr))
