"""Print how much PSNR-Y int8 costs by our quantizer, ONNX Runtime's and NNCF's.

    AGSR_DATA=... python scripts/compare_quantizers.py --weights psnr --steps 1

A row per quantizer, a column per way to run its file on ONNX Runtime's CPU provider: "emulated"
rounds values as the file says and multiplies in fp32, so it doesn't depend on the processor;
"optimized" lets ONNX Runtime choose its kernels. Calibrated on every third photograph of a set and
scored on others. NNCF is compared if it is installed (pip install nncf).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime import quantization as ortq

from agsr.assembly.quantize import quantize
from agsr.backend import Batch
from agsr.bench.data.sets import find_set
from agsr.bicubic import downscale
from agsr.contract import INPUT_NAME
from agsr.datasets.pairs import Pair
from agsr.export.fidelity import as_batch, upscaled
from agsr.metrics import psnr_y
from agsr.pretrained import find_onnx

Quantizer = Callable[[onnx.ModelProto, Sequence[Pair], Sequence[str]], onnx.ModelProto]
"""From an fp32 graph, photographs and the names of nodes to quantize to an int8 graph."""

LEVELS = {
    "emulated": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "optimized": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""How a file is run."""


@click.command(help=__doc__)
@click.option("--set", "name", default="Kodak24", show_default=True)
@click.option("--weights", default="psnr", show_default=True)
@click.option("-s", "--steps", default=1, show_default=True)
@click.option("--photos", default=8, show_default=True, help="Scored, and as many to calibrate on.")
def main(name: str, weights: str, steps: int, photos: int) -> None:
    """Print the table."""
    pairs = [Pair(hr=image.hr, lr=downscale(image.hr)) for image in find_set(name)]
    scored, measured = pairs[0::3][:photos], pairs[1::3][:photos]
    model = onnx.load(find_onnx(weights, steps))
    ours = int8_convolutions(onnx.load(find_onnx(weights, steps, "int8")))
    every = [node.name for node in model.graph.node if node.op_type == "Conv"]
    click.echo(f"| {weights}, {steps} steps, {len(scored)} of {name} | {' | '.join(LEVELS)} |")
    click.echo("|---|" + "---|" * len(LEVELS))
    click.echo(_row("fp32", model, scored))
    for nodes, which in ((ours, ""), (every, ", every convolution")):
        for title, quantizer in quantizers():
            if quantizer is not agsr_int8 or nodes is ours:
                with redirect_stdout(sys.stderr):  # libraries print there, too
                    quantized = quantizer(_copy(model), measured, nodes)
                click.echo(_row(title + which, quantized, scored))


def quantizers() -> Iterator[tuple[str, Quantizer]]:
    """Yield what is installed, by name."""
    yield "agsr export", agsr_int8
    for method in ("MinMax", "Entropy", "Percentile"):
        yield f"quantize_static, {method}", partial(ort_int8, method=method, symmetric=False)
    yield (
        "quantize_static, Percentile, symmetric",
        partial(ort_int8, method="Percentile", symmetric=True),
    )
    if find_spec("nncf"):
        yield "NNCF", nncf_int8


def agsr_int8(
    model: onnx.ModelProto, photos: Sequence[Pair], nodes: Sequence[str]
) -> onnx.ModelProto:
    """Quantize as ``agsr export`` does."""
    others = [n for n in model.graph.node if n.op_type == "Conv" and n.name not in nodes]
    quantize(model, photos, [node.input[1] for node in others])
    return model


def ort_int8(
    model: onnx.ModelProto,
    photos: Sequence[Pair],
    nodes: Sequence[str],
    method: str,
    symmetric: bool,
) -> onnx.ModelProto:
    """Quantize by ONNX Runtime: QDQ, weights per channel; symmetric ranges lie around zero."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        ortq.quantize_static(
            model,
            path,
            _Reader(photos),
            quant_format=ortq.QuantFormat.QDQ,
            per_channel=True,
            nodes_to_quantize=list(nodes),
            calibrate_method=getattr(ortq.CalibrationMethod, method),
            extra_options={"ActivationSymmetric": symmetric},
        )
        return onnx.load(path)


def nncf_int8(
    model: onnx.ModelProto, photos: Sequence[Pair], nodes: Sequence[str]
) -> onnx.ModelProto:
    """Quantize by NNCF with its defaults, ``fast_bias_correction`` included."""
    import nncf

    others = [node.name for node in model.graph.node if node.name not in nodes]
    batches = nncf.Dataset([{INPUT_NAME: as_batch(photo)} for photo in photos])
    scope = nncf.IgnoredScope(names=others, validate=False)
    quantized: onnx.ModelProto = nncf.quantize(model, batches, ignored_scope=scope)
    return quantized


def int8_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions whose weights are dequantized."""
    made = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [n.name for n in model.graph.node if n.op_type == "Conv" and n.input[1] in made]


class _Reader(ortq.CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Photographs, as ONNX Runtime reads them."""

    def __init__(self, photos: Sequence[Pair]) -> None:
        self._batches = iter([{INPUT_NAME: as_batch(photo)} for photo in photos])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input; None at the end."""
        return next(self._batches, None)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _row(title: str, model: onnx.ModelProto, photos: Sequence[Pair]) -> str:
    cells = [f"{_score(model, level, photos):.3f}" for level in LEVELS.values()]
    return f"| {title} | {' | '.join(cells)} |"


def _score(model: onnx.ModelProto, level: Any, photos: Sequence[Pair]) -> float:
    """Mean PSNR-Y, dB."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(batch: Batch) -> Batch:
        return np.asarray(session.run(None, {INPUT_NAME: batch})[0])

    return float(np.mean([psnr_y(upscaled(run, photo), photo.hr) for photo in photos]))


if __name__ == "__main__":
    main()
