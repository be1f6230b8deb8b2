"""Print the table of `docs/models.md`: what every architecture of other projects does here.

The networks are small ones with random weights (`tests/helpers/community_files.py`), so differences
between precisions are examples, not promises. Run it as:
PYTHONPATH=tests/helpers python scripts/community_table.py [NAME...]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torchvision_operators  # noqa: F401  # before anything imports spandrel
from community_files import make

from agsr.backend import Backend
from agsr.contract import Precision, SizeRule
from agsr.engines.community.backend import CommunityBackend
from agsr.engines.community.halo import measure_halo
from agsr.engines.community.trust import probe_tile
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.errors import AgsrError
from agsr.export.community import export_community

SHOWN = ("esrgan", "compact", "span", "realplksr", "omnisr", "dat", "swinir", "hat", "atd")
HEADER = ("architecture", "loads", "halo", "fp16", "bf16", "exports", "runs on")


def main(names: Sequence[str]) -> None:
    """Print a row per network."""
    print("|", " | ".join(HEADER), "|")
    print("|---" * len(HEADER) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or SHOWN:
            print("|", " | ".join(row(name, Path(folder))), "|", flush=True)


def row(name: str, folder: Path) -> tuple[str, ...]:
    """Return the cells of a network."""
    path = make(name, folder / f"{name}.pth")
    with CommunityBackend(path) as backend:
        halo = measure_halo(backend)
        shown = f"{halo.halo}" if halo.is_exact else f"none ({halo.difference:.2g} levels)"
        losses = (loss(path, backend, precision) for precision in ("fp16", "bf16"))
        exported, running = export(path, folder / f"{name}.onnx")
        return (backend.facts.architecture, "yes", shown, *losses, exported, running)


def loss(path: Path, exact: CommunityBackend, precision: str) -> str:
    """Return the difference of a precision from fp32, in levels of 255."""
    if precision not in exact.facts.precisions:
        return "no"
    tile = probe_tile(exact.sizes)
    try:
        with CommunityBackend(path, precision=precision) as reduced:
            if reduced.info.precision != precision:
                return f"replaced by {reduced.info.precision}"
            difference = np.abs(exact.upscale(tile) - reduced.upscale(tile)).mean() * 255
            return f"{difference:.2f}"
    except AgsrError as error:
        return f"no: {error}".partition(": ")[2]


def export(path: Path, target: Path) -> tuple[str, str]:
    """Return how a network exports, and on which backends the file runs."""
    exports = []
    for precision in ("fp32", "fp16", "bf16"):
        try:
            report = export_community(path, target, precision=precision)  # type: ignore[arg-type]
        except AgsrError as error:
            if precision == "fp32":
                return str(error).partition(": ")[2], "torch"
            continue
        exports.append(precision)
        sizes = report.metadata.sizes
    return f"{', '.join(exports)}; {described(sizes)}", ", ".join(["torch", *running(path, target)])


def described(sizes: SizeRule) -> str:
    """Describe sizes in words."""
    if sizes.fixed is not None:
        return f"{sizes.fixed[1]}x{sizes.fixed[0]} only"
    return f"multiples of {sizes.multiple}" if sizes.multiple > 1 else "any size"


def running(path: Path, target: Path) -> list[str]:
    """Return the backends on which the fp32 export gives torch's result."""
    precision: Precision = "fp32"
    export_community(path, target, precision=precision)
    opened: dict[str, Callable[[Path], Backend]] = {"ort": OrtBackend, "openvino": OpenVinoBackend}
    found = []
    with CommunityBackend(path) as exact:
        for name, open_backend in opened.items():
            with open_backend(target) as backend:
                tile = np.ascontiguousarray(probe_tile(exact.sizes)[:, :, :40, :24])
                if np.abs(backend.upscale(tile) - exact.upscale(tile)).max() < 3e-3:
                    found.append(name)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
