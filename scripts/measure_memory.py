"""Print how much memory ``agsr infer`` takes: for large pictures, and for many small ones.

Pictures are made of the example photo. Each case is a separate process, whose resident memory is
watched; of the many files, the slope after the first tenth tells whether something is kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "astronaut.png"


@dataclass(frozen=True)
class Case:
    """What is upscaled."""

    width: int
    height: int
    files: int = 1
    steps: int = 4
    extension: str = "png"


CASES = {
    "large": Case(3000, 2000),
    "huge": Case(5000, 5000, steps=1),
    "many": Case(128, 96, files=500),
}


def main() -> None:
    """Measure the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--steps", type=int, help="for all cases, in place of their own")
    parser.add_argument("--folder", type=Path, help="for inputs and results, some gigabytes")
    chosen = parser.parse_args()
    print("| input | files | steps | result | peak | growth per 100 files | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen.cases or CASES:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            measure(CASES[name], chosen.steps or CASES[name].steps, Path(folder))


def measure(case: Case, steps: int, folder: Path) -> None:
    """Run one case and print its row."""
    make_inputs(case, folder / "in")
    command = [sys.executable, "-m", "agsr", "infer", "-q", "-r", "--steps", str(steps)]
    command += [
        "--provider",
        "cpu",
        "--ext",
        case.extension,
        "-o",
        str(folder / "out"),
        str(folder / "in"),
    ]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        peak, samples = watched(running)
    if running.returncode:
        raise SystemExit(f"agsr infer failed with {running.returncode}")
    seconds = time.perf_counter() - started
    growth = f"{slope(samples) * seconds / case.files * 100 / 2**20:+.1f} MiB"
    size = f"{case.width * 4}x{case.height * 4} {case.extension}"
    print(
        f"| {case.width}x{case.height} | {case.files} | {steps} | {size} | {peak / 1e6:.0f} MB "
        f"| {growth if case.files > 1 else '–'} | {seconds:.0f} |",
        flush=True,
    )


def make_inputs(case: Case, folder: Path) -> None:
    """The photo, repeated and mirrored over the picture, in every file at another place."""
    folder.mkdir()
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    pair = np.concatenate([photo, photo[:, ::-1]], axis=1)
    unit = np.concatenate([pair, pair[::-1]], axis=0)
    repeats = (case.height // len(unit) + 2, case.width // len(unit) + 2, 1)
    canvas = np.tile(unit, repeats)
    for number in range(case.files):
        top, left = number % len(unit), number * 7 % len(unit)
        part = canvas[top : top + case.height, left : left + case.width]
        Image.fromarray(part).save(folder / f"{number:03}.png", compress_level=1)


def watched(running: subprocess.Popen[bytes]) -> tuple[int, list[tuple[float, int]]]:
    """Largest resident memory in bytes, and (seconds, bytes) about ten times a second."""
    process, samples, peak = psutil.Process(running.pid), [], 0
    while running.poll() is None:
        try:
            with process.oneshot():
                samples.append((time.perf_counter(), process.memory_info().rss))
            peak = max(peak, high_water(running.pid))
        except (psutil.NoSuchProcess, OSError):
            break
        time.sleep(0.1)
    running.wait()
    return max(peak, *(size for _, size in samples)), samples


def high_water(pid: int) -> int:
    """The kernel's own mark, which no sample can miss; 0 where there is none."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def slope(samples: list[tuple[float, int]]) -> float:
    """Bytes per second after the first tenth."""
    late = np.array(samples[len(samples) // 10 :])
    return float(np.polyfit(late[:, 0] - late[0, 0], late[:, 1], 1)[0])


if __name__ == "__main__":
    main()
