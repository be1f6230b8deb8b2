"""Put trained weights into the package: checkpoint, the file of the default steps, hashes, ranges.

AGSR_DATA=... python scripts/ship_weights.py runs/psnr/best.safetensors psnr
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from itertools import product
from pathlib import Path

import click
import onnx

from agsr._version import __version__
from agsr.assembly.assemble import assemble
from agsr.assembly.requested import RecordedScales, step_scales
from agsr.assembly.tensors import to_array
from agsr.assembly.weights import GeneratorWeights, read_generator
from agsr.bench.data.sets import find_set
from agsr.cli.param_types import FilePath
from agsr.contract import DEFAULT_STEPS, MAX_STEPS, Precision
from agsr.export import export_onnx
from agsr.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from agsr.pretrained import (
    CHECKPOINT_SUFFIX,
    ONNX_SUFFIX,
    SCALES_FILE,
    WEIGHTS_FOLDER,
    onnx_name,
    sha256,
)

MEASURED_STEPS = range(1, 7)
"""Step counts that are compared with torch in each precision, and whose hashes are recorded."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

Scales = dict[str, dict[str, float]]
"""Scales of values by step count."""


@click.command(help=__doc__)
@click.argument("source", type=FilePath)
@click.argument("name")
@click.option(
    "--calibrate",
    type=FilePath,
    help="Folder of photographs, for int8. [default: Kodak24]",
)
def main(source: Path, name: str, calibrate: Path | None) -> None:
    """Ship the checkpoint ``source`` under ``name``, in place of what had that name."""
    checkpoint = load_checkpoint(source)
    photos = calibrate or find_set("Kodak24").files[0].parent
    verify(checkpoint)
    file = WEIGHTS_FOLDER / SCALES_FILE
    scales = json.loads(file.read_text()) if file.is_file() else {}
    scales[name] = compressed(measure_scales(checkpoint, photos))
    save_checkpoint(checkpoint, WEIGHTS_FOLDER / f"{name}{CHECKPOINT_SUFFIX}")
    write_files(scales)


def verify(checkpoint: Checkpoint) -> None:
    """Compare the files in floating point with torch, and print how far off they are."""
    for steps, precision in product(MEASURED_STEPS, PRECISIONS[:2]):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, onnx_name("new", steps, precision))
            report = export_onnx(checkpoint, path, steps=steps, precision=precision)
        worst = max(row.largest for row in report.parity)
        print(f"{path.name}: {report.size} bytes, off by {worst:.1e} at most")


def measure_scales(checkpoint: Checkpoint, photos: Path) -> Scales:
    """Calibrate every step count, and print what int8 loses."""
    scales = {}
    for steps in range(1, MAX_STEPS + 1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "int8.onnx")
            report = export_onnx(checkpoint, path, steps=steps, precision="int8", calibrate=photos)
            scales[str(steps)] = read_scales(onnx.load(path))
        assert report.fidelity is not None
        print(f"{steps} steps in int8: loses {report.fidelity.loss:.4f} dB")
    return scales


def read_scales(model: onnx.ModelProto) -> dict[str, float]:
    """Return one 8-bit step of each quantized value of a graph."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    names = [n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    return {name.removesuffix("_scale"): shortest(to_array(constants[name])) for name in names}


def shortest(value: object) -> float:
    """Return a float32 as the number with the fewest digits that rounds to it."""
    return float(str(value))


def compressed(scales: Scales) -> Scales:
    """Keep of each step count what differs from the next larger one.

    What the loop computes doesn't depend on the number of steps that follow.
    """
    kept: Scales = {}
    for steps in sorted(scales, key=int, reverse=True):
        known = step_scales(kept, int(steps))
        kept[steps] = {n: v for n, v in scales[steps].items() if known.get(n) != v}
    return kept


def write_files(scales: dict[str, Scales]) -> None:
    """Write the ranges, the ONNX files of the default steps, and the manifest of all weights."""
    file = WEIGHTS_FOLDER / SCALES_FILE
    file.write_text(json.dumps(scales, indent=1) + "\n")
    for old in WEIGHTS_FOLDER.glob(f"*{ONNX_SUFFIX}"):
        old.unlink()
    assembled = {}
    for path in sorted(WEIGHTS_FOLDER.glob(f"*{CHECKPOINT_SUFFIX}")):
        weights, known = read_generator(path), scales[path.stem]
        for steps, precision in product(MEASURED_STEPS, PRECISIONS):
            content = written(weights, steps, precision, step_scales(known, steps))
            name = onnx_name(path.stem, steps, precision)
            assembled[name] = hashlib.sha256(content).hexdigest()
            if (steps, precision) == (DEFAULT_STEPS, "fp32"):
                (WEIGHTS_FOLDER / name).write_bytes(content)
    kinds = (CHECKPOINT_SUFFIX, ONNX_SUFFIX)
    files = [file, *(p for p in WEIGHTS_FOLDER.iterdir() if p.suffix in kinds)]
    manifest = {
        "version": __version__,
        "files": {path.name: sha256(path) for path in sorted(files)},
        "assembled": dict(sorted(assembled.items())),
    }
    (WEIGHTS_FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def written(
    weights: GeneratorWeights, steps: int, precision: Precision, scales: dict[str, float]
) -> bytes:
    """Return the file that users get of these weights."""
    measure = RecordedScales(scales) if precision == "int8" else None
    return assemble(weights, steps, precision, measure=measure, version=__version__)


if __name__ == "__main__":
    main()
