"""Print the table of `docs/models.md`: what every architecture of other projects does here.

The networks are small ones with random weights (`tests/helpers/community_files.py`), so differences
between precisions are examples, not promises. They are measured on eight photographs of
``$AGSR_DATA/val/Kodak24``; int8 is calibrated on the others. Run it as:
PYTHONPATH=tests/helpers python scripts/community_table.py [NAME...]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torchvision_operators  # noqa: F401  # before anything imports spandrel
from community_files import make

from agsr.backend import Backend, Batch
from agsr.bicubic import downscale
from agsr.contract import Precision, SizeRule
from agsr.engines.community.backend import CommunityBackend
from agsr.engines.community.halo import measure_halo
from agsr.engines.community.trust import probe_tile
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.tensorrt.api import load_tensorrt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.options import BuildOptions
from agsr.errors import AgsrError
from agsr.export.community import export_community
from agsr.image import read_rgb

SHOWN = ("esrgan", "compact", "span", "realplksr", "dat", "swinir", "omnisr", "hat", "atd")
HEADER = ("architecture", "scale", "halo", "fp16", "bf16", "int8", "exports", "runs on")
PHOTOS = 8
SIDE = 48
"""Side of the LR part of each photograph."""


def main(names: Sequence[str]) -> None:
    """Print a row per network."""
    kodak = Path(os.environ["AGSR_DATA"], "val", "Kodak24")
    files = sorted(kodak.glob("*.png"))
    lrs = [as_lr(file) for file in files[:: len(files) // PHOTOS][:PHOTOS]]
    print("|", " | ".join(HEADER), "|")
    print("|---" * len(HEADER) + "|")
    with tempfile.TemporaryDirectory() as folder:
        others = Path(folder, "others")
        others.mkdir()
        for file in set(files) - set(files[:: len(files) // PHOTOS][:PHOTOS]):
            (others / file.name).symlink_to(file)
        for name in names or SHOWN:
            print("|", " | ".join(row(name, Path(folder), lrs, others)), "|", flush=True)


def as_lr(file: Path) -> Batch:
    """Return the middle of a photograph, downscaled by four."""
    photo = read_rgb(file)
    top, left = ((side - 4 * SIDE) // 2 for side in photo.shape[:2])
    lr = downscale(np.ascontiguousarray(photo[top : top + 4 * SIDE, left : left + 4 * SIDE]))
    return np.ascontiguousarray(lr.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def row(name: str, folder: Path, lrs: Sequence[Batch], photos: Path) -> tuple[str, ...]:
    """Return the cells of a network."""
    path = make(name, folder / f"{name}.pth")
    with CommunityBackend(path) as exact:
        halo = measure_halo(exact)
        shown = f"{halo.halo}" if halo.is_exact else f"none ({halo.difference:.2g} levels)"
        expected = [exact.upscale(lr) for lr in lrs]
        reduced = [loss(path, exact, p, lrs, expected) for p in ("fp16", "bf16")]
        files, failures = exports(path, folder, photos)
        int8 = failures.get("int8", "")
        if "int8" in files:
            with OrtBackend(files["int8"]) as backend:
                int8 = differing(backend, lrs, expected)
        running = ", ".join(["torch", *runtimes(exact, files)]) if files else "torch"
        sizes = described(OrtBackend(files["fp32"]).sizes) if files else ""
        cells = (exact.facts.architecture, f"×{exact.info.scale}", shown, *reduced, int8)
        return *cells, f"{', '.join(files)}; {sizes}" if files else failures["fp32"], running


def loss(
    path: Path, exact: CommunityBackend, precision: str, lrs: Sequence[Batch], sr: Sequence[Batch]
) -> str:
    """Return the difference of a precision of torch from fp32."""
    if precision not in exact.facts.precisions:
        return "no"
    with CommunityBackend(path, precision=precision) as reduced:
        if reduced.info.precision != precision:
            return f"replaced by {reduced.info.precision}"
        return differing(reduced, lrs, sr)


def differing(backend: Backend, lrs: Sequence[Batch], expected: Sequence[Batch]) -> str:
    """Return the mean difference in levels of 255."""
    pairs = zip(lrs, expected, strict=True)
    # Not clipped: random networks may be black, where nothing could be lost.
    found = [np.abs(backend.upscale(lr) - sr).mean() for lr, sr in pairs]
    return f"{np.mean(found) * 255:.2f}"


def exports(path: Path, folder: Path, photos: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the exported files by precision, and the reasons of those that fail."""
    files, failures = dict[str, Path](), dict[str, str]()
    known: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    for precision in known:
        target = folder / f"{path.stem}-{precision}.onnx"
        calibrate = photos if precision == "int8" else None
        try:
            export_community(path, target, precision=precision, calibrate=calibrate)
        except AgsrError as error:
            failures[precision] = str(error).partition(": ")[2]
            if precision == "fp32":
                break
            continue
        files[precision] = target
    return files, failures


def described(sizes: SizeRule) -> str:
    """Describe sizes in words."""
    if sizes.fixed is not None:
        return f"{sizes.fixed[1]}x{sizes.fixed[0]} only"
    return f"multiples of {sizes.multiple}" if sizes.multiple > 1 else "any size"


def runtimes(exact: CommunityBackend, files: dict[str, Path]) -> Iterator[str]:
    """Yield the runtimes on which the fp32 export gives torch's result, or which build it."""
    opened: dict[str, Callable[[Path], Backend]] = {"ort": OrtBackend, "openvino": OpenVinoBackend}
    tile = np.ascontiguousarray(probe_tile(exact.sizes)[:, :, :40, :24])
    for name, open_backend in opened.items():
        with open_backend(files["fp32"]) as backend:
            exact.sizes = backend.sizes  # both pad alike
            difference = np.abs(backend.upscale(tile) - exact.upscale(tile)).max() * 255
        yield name if difference < 1 else f"({name}: {difference:.0f} levels off)"
    content = files["fp32"].read_bytes()
    trt = load_tensorrt()
    network = trt.module.Builder(trt.messages()).create_network(0)
    parser = trt.module.OnnxParser(network, trt.messages())
    if not parser.parse(content):
        yield f"(trt: {parser.get_error(0).desc().splitlines()[0]})"
        return
    try:
        build_engine(trt, content, "network", BuildOptions(targets=("sm89",)))
        yield "trt"
    except AgsrError as error:
        yield f"(trt parses: {error})"


if __name__ == "__main__":
    main(sys.argv[1:])
