"""Put trained weights into the package: checkpoint, ONNX files by steps and precision, hashes.

python scripts/ship_weights.py runs/psnr/best.safetensors psnr
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import get_args

from agsr.catalog import CHECKPOINT_SUFFIX, ONNX_SUFFIX, WEIGHTS_FOLDER, onnx_name, sha256
from agsr.checkpoint import load_checkpoint, save_checkpoint
from agsr.contract import Precision
from agsr.export import export_onnx

MOST_STEPS = 6
PRECISIONS = get_args(Precision)


def main(source: Path, name: str) -> None:
    """Ship the checkpoint ``source`` under ``name``, in place of what had that name."""
    checkpoint = load_checkpoint(source)
    for old in WEIGHTS_FOLDER.glob(f"{name}-*{ONNX_SUFFIX}"):
        old.unlink()
    save_checkpoint(checkpoint, WEIGHTS_FOLDER / f"{name}{CHECKPOINT_SUFFIX}")
    most = checkpoint.network_type.most_steps
    for steps, precision in product(range(1, min(MOST_STEPS, most) + 1), PRECISIONS):
        path = WEIGHTS_FOLDER / onnx_name(name, steps, precision)
        report = export_onnx(checkpoint, path, steps=steps, precision=precision)
        worst = max(row.largest for row in report.parity)
        print(f"{path.name}: {report.size} bytes, differs from torch by {worst:.1e} at most")
    files = [p for p in WEIGHTS_FOLDER.iterdir() if p.suffix in (CHECKPOINT_SUFFIX, ONNX_SUFFIX)]
    manifest = {path.name: sha256(path) for path in sorted(files)}
    (WEIGHTS_FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])
