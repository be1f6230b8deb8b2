"""Put trained weights into the package: the checkpoint, an ONNX file per step count, the hashes.

python scripts/ship_weights.py runs/psnr/best.safetensors psnr
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agsr.catalog import CHECKPOINT_SUFFIX, ONNX_SUFFIX, WEIGHTS_FOLDER, sha256
from agsr.checkpoint import load_checkpoint, save_checkpoint
from agsr.export import export_onnx

STEPS = range(1, 7)


def main(source: Path, name: str) -> None:
    """Ship the checkpoint ``source`` under ``name``, in place of what had that name."""
    checkpoint = load_checkpoint(source)
    for old in WEIGHTS_FOLDER.glob(f"{name}-*{ONNX_SUFFIX}"):
        old.unlink()
    save_checkpoint(checkpoint, WEIGHTS_FOLDER / f"{name}{CHECKPOINT_SUFFIX}")
    for steps in STEPS:
        path = WEIGHTS_FOLDER / f"{name}-{steps}{ONNX_SUFFIX}"
        report = export_onnx(checkpoint, path, steps=steps)
        worst = max(row.largest for row in report.parity)
        print(f"{path.name}: {report.size} bytes, differs from torch by {worst:.1e} at most")
    files = [p for p in WEIGHTS_FOLDER.iterdir() if p.suffix in (CHECKPOINT_SUFFIX, ONNX_SUFFIX)]
    manifest = {path.name: sha256(path) for path in sorted(files)}
    (WEIGHTS_FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])
