"""Put trained weights into the package: checkpoint, ONNX files by steps and precision, hashes.

AGSR_DATA=... python scripts/ship_weights.py runs/psnr/best.safetensors psnr
python scripts/ship_weights.py runs/psnr/best.safetensors psnr --precision fp32
"""

from __future__ import annotations

import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import click

from agsr.bench.data.sets import find_set
from agsr.cli.param_types import FilePath
from agsr.contract import PRECISIONS
from agsr.export import export_onnx
from agsr.model.checkpoint import load_checkpoint, save_checkpoint
from agsr.pretrained import CHECKPOINT_SUFFIX, ONNX_SUFFIX, WEIGHTS_FOLDER, onnx_name, sha256

MOST_STEPS = 6
USUAL = ("fp32", "fp16", "int8")


@click.command(help=__doc__)
@click.argument("source", type=FilePath)
@click.argument("name")
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=USUAL,
    show_default=True,
)
@click.option(
    "--calibrate",
    type=FilePath,
    help="Folder of photographs, for int8. [default: Kodak24]",
)
def main(source: Path, name: str, precisions: tuple[Any, ...], calibrate: Path | None) -> None:
    """Ship the checkpoint ``source`` under ``name``, in place of what had that name."""
    checkpoint = load_checkpoint(source)
    if calibrate is None and "int8" in precisions:
        calibrate = find_set("Kodak24").files[0].parent
    most = checkpoint.network_type.max_steps
    with tempfile.TemporaryDirectory(dir=WEIGHTS_FOLDER.parent) as folder:
        new = Path(folder)
        save_checkpoint(checkpoint, new / f"{name}{CHECKPOINT_SUFFIX}")
        for steps, precision in product(range(1, min(MOST_STEPS, most) + 1), precisions):
            path = new / onnx_name(name, steps, precision)
            photos = calibrate if precision == "int8" else None
            report = export_onnx(
                checkpoint, path, steps=steps, precision=precision, calibrate=photos
            )
            worst = max(row.largest for row in report.parity)
            loss = f", loses {report.fidelity.loss:.4f} dB" if report.fidelity else ""
            print(f"{path.name}: {report.size} bytes, off by {worst:.1e} at most{loss}")
        for old in WEIGHTS_FOLDER.glob(f"{name}-*{ONNX_SUFFIX}"):
            old.unlink()
        for path in new.iterdir():
            path.replace(WEIGHTS_FOLDER / path.name)
    files = [p for p in WEIGHTS_FOLDER.iterdir() if p.suffix in (CHECKPOINT_SUFFIX, ONNX_SUFFIX)]
    manifest = {path.name: sha256(path) for path in sorted(files)}
    (WEIGHTS_FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
