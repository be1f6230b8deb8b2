"""The whole GPU session on the CPU, with tiny sizes: what would fail there fails here first.

A copy of the checkout, without what `gpu_pack.slim` removes and nothing beside it, gets a part with
tiny data. A hook refuses the packages that the machine doesn't have. Then: all stages; a run that
SIGKILL ends and another call resumes from what came back; a call that runs out of time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import gpu_pack
from gpu_pack import KitError

MOST_FILES, MOST_BYTES, MOST_FOLDERS = 8, 16 * gpu_pack.MIB, 2
"""What may come back: files, bytes of each, folders above it."""

ABSENT = ("av", "openvino", "pooch", "pyvips", "tensorrt", "tensorrt_rtx", "tritonclient")
"""Packages that developers have and the machine doesn't."""

HOOK = f"""
from importlib.machinery import PathFinder


class FindSpec:  # no function: pytest makes it an attribute of a class

    def __init__(self):
        self.usual = PathFinder.find_spec

    def __call__(self, name, path=None, target=None):
        absent = name.partition(".")[0] in {ABSENT!r}
        return None if absent else self.usual(name, path, target)


PathFinder.find_spec = FindSpec()
"""
"""Of ``sitecustomize``, which Python imports at its start."""

TINY_RUN = ("--schedule", "4x1@8/1", "--set", "warmup=2", "--fp32")


def rehearse_command(options: argparse.Namespace) -> None:
    """Rehearse in an empty folder."""
    folder: Path = options.folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise KitError(f"{folder} is not empty; name a new folder")
    tree = folder / "tree"
    copy_tree(Path.cwd(), tree)
    _write_tiny_part(Path.cwd(), tree / ".kit" / "1", options.wheel)
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    machine = Machine(folder, tree)

    _say("an explicit start is required")
    machine.expect("train", "0.1", status=1, text="no state to resume")
    _say("stages, one call")
    first = [] if options.short else ["check"]
    machine.expect("--seconds", "1800", *first, "train", "0.4", "speed", "--", *_begin())
    machine.train_to_the_end("psnr")

    _say("SIGKILL, then another machine that has nothing but what came back")
    machine.kill_while_training("--name", "second", "train", "30", "--", *_begin())
    before = machine.state("second")["iteration"]
    machine.expect_returned()
    machine.forget(keep="second")
    after = machine.train_to_the_end("second", 0.3)
    if not after["iteration"] > before:
        raise KitError(f"not resumed: {before} iterations before, then {after}")

    _say("a call that runs out of time")
    machine.expect("--seconds", "6", "speed", status=1, text="out of time")
    _say("done")


class Machine:
    """A stand-in for the GPU machine: a tree, a home, and an output folder."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.out, self._home, self._tree = folder / "out", folder / "home", tree
        self._environment = {
            **{k: v for k, v in os.environ.items() if k not in ("AGSR_DATA", "PYTHONPATH")},
            "OUT": str(self.out),
            "KIT_HOME": str(self._home),
            "DEVICE": "cpu",
            "KIT_PATIENCE": "6",
            "SIZES": "tiny",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(folder / "hook"),
            "AGSR_CACHE": str(folder / "cache"),
        }

    def expect(self, *words: str, status: int = 0, text: str = "") -> None:
        """Run a call, its output folder empty; fail if it ends otherwise."""
        shutil.rmtree(self.out, ignore_errors=True)
        done = subprocess.run(
            ["scripts/gpu_kit.sh", "run", *words],
            cwd=self._tree,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout, done.stderr, flush=True)
        if done.returncode != status or text not in done.stdout + done.stderr:
            raise KitError(f"{' '.join(words)}: status {done.returncode}, expected {status} {text}")
        self.expect_returned()

    def train_to_the_end(self, name: str, minutes: float = 0.5) -> dict[str, float]:
        """Resume a run with more and more time, since starting up alone may use it all here."""
        while self.state(name)["progress"] < 1:
            if minutes > 10:
                raise KitError(f"ten minutes are not enough for {name}: {self.state(name)}")
            seconds = str(60 * minutes + 600)
            self.expect("--name", name, "--seconds", seconds, "train", str(minutes), "--", "--fp32")
            minutes *= 2
        return self.state(name)

    def kill_while_training(self, *words: str) -> None:
        """Kill a call, and all that it started, once it has trained for a while."""
        shutil.rmtree(self.out, ignore_errors=True)
        process = subprocess.Popen(
            ["scripts/gpu_kit.sh", "run", *words],
            cwd=self._tree,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 120
        while time.monotonic() < end and not (self.out / "second" / "best.safetensors").exists():
            time.sleep(0.2)
        time.sleep(1)
        for pid in [*_descendants(process.pid), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait()

    def state(self, name: str = "psnr") -> dict[str, float]:
        """The header of a run's state that came back."""
        content = (self.out / name / "state.safetensors").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        progress: dict[str, float] = json.loads(header["__metadata__"]["progress"])
        return progress

    def forget(self, keep: str) -> None:
        """A new machine, for which the run that came back was packed again."""
        part = self._tree / ".kit" / "2"
        items = gpu_pack.run_items(self.out / keep)
        gpu_pack.write_part(items, part)
        shutil.rmtree(self._home)

    def expect_returned(self) -> None:
        """Fail if something in the output folder would not come back."""
        files = [path for path in self.out.rglob("*") if path.is_file()]
        if len(files) > MOST_FILES:
            raise KitError(f"{len(files)} files, {MOST_FILES} come back: {sorted(map(str, files))}")
        for path in files:
            inside = path.relative_to(self.out)
            sound = re.fullmatch(r"[\w./-]+", str(inside), re.ASCII) is not None
            if (
                not sound
                or len(inside.parts) > 1 + MOST_FOLDERS
                or path.stat().st_size > MOST_BYTES
            ):
                raise KitError(f"{inside} ({path.stat().st_size} bytes) would not come back")


def copy_tree(root: Path, target: Path) -> None:
    """What would travel of the checkout, links as links, by a tar stream."""
    listed = gpu_pack.git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    removed = set(gpu_pack.removable(root))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in sorted(set(listed.split("\0")) - removed - {""}):
            if (root / name).is_symlink() or (root / name).exists():
                archive.add(root / name, arcname=name, recursive=False)
    content.seek(0)
    target.mkdir(parents=True)
    with tarfile.open(fileobj=content) as archive:
        archive.extractall(target, filter="fully_trusted")


def _write_tiny_part(root: Path, part: Path, wheels: Sequence[Path]) -> None:
    """Two photos to train on, one to validate by, and wheels."""
    photo, sample = root / "examples" / "astronaut.png", root / "export" / "sample.png"
    shard = part.parent / "shard-0.tar"
    shard.parent.mkdir(parents=True)
    with tarfile.open(shard, "w") as archive:
        archive.add(photo, arcname="a.png")
        archive.add(sample, arcname="b.png")
    items = [gpu_pack.Item(shard, "data/train/shard-0.tar")]
    items.append(gpu_pack.Item(photo, "data/val/Kodak24/a.png"))
    items += [gpu_pack.Item(wheel, f"wheels/{wheel.name}") for wheel in wheels]
    gpu_pack.write_part(items, part)
    shard.unlink()


def _begin() -> Sequence[str]:
    return ("--init", "psnr", *TINY_RUN)


def _descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _say(text: str) -> None:
    print(f"\n#### {text}", flush=True)
