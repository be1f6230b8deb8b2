"""What travels to a GPU machine without a package index: data, wheels, a run; in small parts.

The machine gets the checkout's files and one part per call; `gpu_run.install` puts the parts
together there. Training images stay WebP, which is smaller than anything a GPU could take at once;
16 cores decode a shard in a second. Validation images are recompressed without loss.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
MOST = 64.0
"""MiB that one call can carry, checkout and part together."""
LIMIT = 60.0
"""MiB that a pack's part may make of it."""

SLIM = ("agsr/weights", "docs/figures")
"""Folders that no stage needs but for `KEPT`."""
KEPT = frozenset(
    f"agsr/weights/{name}"
    for name in ("LICENSE", "manifest.json", "psnr.safetensors", "psnr-4.onnx", "psnr-4-fp16.onnx")
)

VALIDATION_PHOTOS = 8
"""Of Kodak24: enough to choose a checkpoint."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class KitError(Exception):
    """What was found, what was expected, and what to type next."""


@dataclass(frozen=True)
class Item:
    """A file of a pack."""

    source: Path
    target: str
    """Where it lies in the kit's home on the machine."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.stat().st_size


def pack_command(options: argparse.Namespace) -> None:
    """Assemble the parts, and print what to do with them."""
    folder: Path = options.folder
    data = os.environ.get("AGSR_DATA")
    if not data or not Path(data).is_dir():
        raise KitError(f"AGSR_DATA is {data or 'unset'}; expected the folder with train/ and val/")
    shutil.rmtree(folder, ignore_errors=True)
    made = folder / "made"
    made.mkdir(parents=True)
    items = data_items(Path(data), made, gan=options.gan)
    items += [Item(wheel, f"wheels/{wheel.name}") for wheel in options.wheel]
    if not options.offline:
        items += _wheels(made)
    if options.run:
        items += run_items(options.run)
    parts = divide(items, options.limit * MIB - slim_size(Path.cwd()))
    for number, part in enumerate(parts, 1):
        write_part(part, folder / str(number))
    shutil.rmtree(made)
    _print_plan(folder, len(parts))


def data_items(data: Path, made: Path, *, gan: bool = False) -> list[Item]:
    """Training shards as they are, Set5, and some photos without loss; what ``gan`` needs too."""
    items = [Item(path, f"data/train/{path.name}") for path in sorted(data.glob("train/*.tar"))]
    items += [
        Item(path, f"data/{path.relative_to(data)}") for path in sorted(data.glob("Set5/*/*.png"))
    ]
    photos = sorted(data.glob("val/Kodak24/*.png"))[:: max(1, 24 // VALIDATION_PHOTOS)]
    items += [
        Item(_without_loss(photo, made), f"data/val/Kodak24/{photo.stem}.webp") for photo in photos
    ]
    if gan:
        items += [
            Item(path, f"data/lpips/{path.name}") for path in sorted(data.glob("lpips/*.npz"))
        ]
    if not any(item.target.startswith("data/train/") for item in items):
        raise KitError(f"no train/*.tar under AGSR_DATA={data}")
    return items


def divide(items: list[Item], room: float) -> list[list[Item]]:
    """Parts with at most ``room`` bytes each, the largest items first.

    Raises:
        KitError: An item is larger than a part.
    """
    parts: list[list[Item]] = []
    for item in sorted(items, key=lambda item: (-item.size, item.target)):
        if item.size > room:
            raise KitError(
                f"{item.source} has {item.size / MIB:.1f} MiB, beside the checkout there are "
                f"{room / MIB:.1f}: divide the file, or raise --limit up to {MOST:.0f}"
            )
        fitting = (p for p in parts if sum(i.size for i in p) + item.size <= room)
        part = next(fitting, None)
        if part is None:
            parts.append(part := [])
        part.append(item)
    return parts


def size_command(options: argparse.Namespace) -> None:
    """Print what would travel; more than the limit is an error."""
    tree, parts = travelling(Path.cwd()), sum(map(_folder_size, options.folders))
    print(f"checkout {tree / MIB:.2f} MiB + parts {parts / MIB:.2f} MiB")
    if (tree + parts) / MIB > options.limit:
        raise KitError(
            f"{(tree + parts) / MIB:.2f} MiB would travel, the limit is {options.limit:g}: "
            "run 'scripts/gpu_kit.sh slim' first, or name fewer parts"
        )


def travelling(root: Path) -> int:
    """Bytes of the files that git tracks or would track."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = {root / name for name in listed.split("\0") if name}
    return sum(path.lstat().st_size for path in paths if path.is_symlink() or path.is_file())


def slim_size(root: Path) -> int:
    """The same after `slim`."""
    return travelling(root) - sum((root / name).stat().st_size for name in removable(root))


def slim(root: Path) -> None:
    """Remove from the index and the disk what no stage needs and HEAD holds."""
    changed = git(root, "status", "--porcelain", "--", *SLIM).strip()
    if changed:
        raise KitError(f"changes that are not committed:\n{changed}\ncommit or undo them first")
    names = removable(root)
    if names:
        git(root, "rm", "-q", "--", *names)
    print(f"removed {len(names)} files; before any commit: scripts/gpu_kit.sh restore")


def restore(root: Path) -> None:
    """Bring back what `slim` removed."""
    gone = git(root, "diff", "--name-only", "--diff-filter=D", "-z", "HEAD", "--", *SLIM)
    names = [name for name in gone.split("\0") if name]
    if names:
        git(root, "restore", "--source=HEAD", "--staged", "--worktree", "--", *names)
    print(f"restored {len(names)} files")


def missing_packages(root: Path) -> list[str]:
    """Dependencies of agsr that ``requirements-device.txt`` doesn't list."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    block = project.split("\ndependencies = [", 1)[1].split("\n]", 1)[0]
    needed = re.findall(r'^\s*"([A-Za-z0-9_.-]+)', block, re.MULTILINE)
    listed = (root / "requirements-device.txt").read_text(encoding="utf-8")
    there = {name.lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)", listed, re.MULTILINE)}
    return [name for name in needed if name.lower() not in there]


def removable(root: Path) -> list[str]:
    """Tracked files that `slim` removes."""
    listed = git(root, "ls-files", "-z", "--", *SLIM)
    return [name for name in listed.split("\0") if name and name not in KEPT]


def _wheels(folder: Path) -> list[Item]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    command += [word for name in PLATFORMS for word in ("--platform", name)]
    command += ["-c", "constraints.txt", *missing_packages(Path.cwd())]
    if subprocess.run(command, check=False).returncode:
        raise KitError("pip can't download the wheels: give them as --wheel FILE with --offline")
    return [Item(wheel, f"wheels/{wheel.name}") for wheel in sorted(folder.glob("*.whl"))]


def run_items(run: Path) -> list[Item]:
    """A run's files."""
    files = [run / f"{name}.safetensors" for name in ("state", "best", "last")]
    if not files[0].is_file():
        raise KitError(f"{files[0]}: no such file; --run expects the folder of a run to resume")
    return [Item(file, f"runs/{run.name}/{file.name}") for file in files if file.is_file()]


def _without_loss(photo: Path, folder: Path) -> Path:
    """A photo as WebP, decoded again to compare."""
    from PIL import Image, ImageChops

    target = folder / f"{photo.stem}.webp"
    with Image.open(photo) as image:
        rgb = image.convert("RGB")
    rgb.save(target, lossless=True, quality=100, method=4)
    with Image.open(target) as again:
        if ImageChops.difference(rgb, again.convert("RGB")).getbbox():
            raise KitError(f"{photo}: WebP changed its pixels")
    return target


def write_part(part: list[Item], folder: Path) -> None:
    """Copy the items to where `gpu_run.install` finds them."""
    for item in part:
        target = folder / item.target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.source, target)
    sizes = {item.target: item.size for item in part}
    (folder / "pack.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


def _print_plan(folder: Path, parts: int) -> None:
    tree = slim_size(Path.cwd())
    for number in range(1, parts + 1):
        size = _folder_size(folder / str(number))
        print(
            f"{folder / str(number)}: {size / MIB:.2f} MiB, {(size + tree) / MIB:.2f} with the tree"
        )
    print(
        "next: scripts/gpu_kit.sh slim; one call per part, which names its folder to the transfer\n"
        "and runs scripts/gpu_kit.sh run STAGE...; then scripts/gpu_kit.sh restore"
    )


def _folder_size(folder: Path) -> int:
    if not folder.is_dir():
        raise KitError(f"{folder}: no such folder; make it with 'scripts/gpu_kit.sh pack'")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def git(root: Path, *arguments: str) -> str:
    """What a git command prints."""
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise KitError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
