#!/usr/bin/env python3
"""Measure what many files cost: overhead per file, memory of the driver, efficiency of workers.

    python scripts/measure_scale.py efficiency [--photos 200] [--rounds 5]
    python scripts/measure_scale.py files [--counts 1000,5000] [--ways one,shards,devices,ray]

``efficiency`` compares two worker processes of one thread with one process of two threads on photos
of 500×375 pixels, interleaved; ``files`` upscales pictures of 16×16 pixels. Tables go to stdout.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.png"
WAYS = {
    "one": [[]],
    "shards": [["--shard", f"{index}/2"] for index in range(2)],
    "devices": [["--devices", "cpu:2"]],
    "ray": [["--ray", "local", "-j", "1"]],
}
"""Options of the commands of each way, which run one after the other."""


@dataclass(frozen=True)
class Run:
    """A finished command."""

    seconds: float
    """From its start to its end."""
    working: float
    """From the first result to the last."""
    first: int
    """Bytes of its own process's memory at the first result."""
    largest: int
    """The most."""


def infer(arguments: Sequence[str]) -> Run:
    """Run ``agsr infer`` and watch its process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "agsr", "infer", "-q", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watched = psutil.Process(process.pid)
        process.stdout.readline()
        start = end = time.perf_counter()
        first = largest = watched.memory_info().rss
        for _ in process.stdout:
            end = time.perf_counter()
            with suppress(psutil.Error):
                largest = max(largest, watched.memory_info().rss)
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {' '.join(command)}")
    return Run(time.perf_counter() - began, end - start, first, largest)


def pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Make different pictures of a size."""
    folder.mkdir(parents=True)
    photo = Image.open(PHOTO).convert("RGB")
    for number in range(count):
        left, top = number % 50, number // 50 % 50
        part = photo.crop((left, top, left + 78, top + 78)).resize(size, Image.Resampling.BICUBIC)
        part.save(folder / f"{number:05}.jpg", quality=90)
    return folder


def efficiency(photos: int, rounds: int, weights: str) -> None:
    """Print the throughput of two workers relative to that of one process."""
    with tempfile.TemporaryDirectory() as name:
        source = pictures(Path(name, "in"), photos, (500, 375))
        taken: dict[str, list[Run]] = {"-j 2": [], "--devices cpu:2": []}
        for number in range(rounds):
            for way in list(taken)[:: 1 if number % 2 else -1]:
                target = Path(name, "out")
                common = ["-r", str(source), "-o", str(target), "-w", weights, "-f", "jpg"]
                taken[way].append(infer([*common, *way.split()]))
                shutil.rmtree(target)
        print(f"{photos} photos of 500×375, {weights}, {rounds} rounds")
        whole, working = ([_median(taken[way], what) for way in taken] for what in _TIMES)
        for way, seconds, between in zip(taken, whole, working, strict=True):
            print(f"{way:18} {seconds:8.1f} s whole, {between:8.1f} s first to last result")
        print(
            f"efficiency of two workers: {whole[0] / whole[1]:.3f} of the whole command, ", end=""
        )
        print(f"{working[0] / working[1]:.3f} without the start")


_TIMES = ("seconds", "working")


def _median(runs: Sequence[Run], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


def files(counts: Sequence[int], ways: Sequence[str], weights: str) -> None:
    """Print time per file and memory of each way."""
    print(f"{'way':8} {'files':>6} {'whole':>8} {'ms/file':>8} {'MB first':>9} {'MB most':>8}")
    for way, count, runs in _each(counts, ways, weights):
        seconds, working = sum(run.seconds for run in runs), sum(run.working for run in runs)
        first, largest = (
            max(values) / 1e6 for values in zip(*((r.first, r.largest) for r in runs), strict=True)
        )
        row = f"{way:8} {count:6} {seconds:6.1f} s {1000 * working / count:8.1f} {first:9.0f}"
        print(f"{row} {largest:8.0f}", flush=True)


def _each(
    counts: Sequence[int], ways: Sequence[str], weights: str
) -> Iterator[tuple[str, int, list[Run]]]:
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            source = pictures(Path(name, "in"), count, (16, 16))
            for way in ways:
                target = Path(name, "out")
                common = ["-r", str(source), "-o", str(target), "-w", weights]
                runs = [infer([*common, *options]) for options in WAYS[way]]
                made = sum(path.suffix == ".png" for path in target.iterdir())
                if made != count:
                    raise SystemExit(f"{way}: {made} results of {count} files")
                shutil.rmtree(target)
                yield way, count, runs


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["efficiency", "files"])
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", default="1000,5000")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("-w", "--weights", default="psnr")
    options = parser.parse_args()
    if options.what == "efficiency":
        efficiency(options.photos, options.rounds, options.weights)
    else:
        counts = [int(count) for count in options.counts.split(",")]
        files(counts, options.ways.split(","), options.weights)


if __name__ == "__main__":
    main()
