"""How long a small `agsr infer` takes beyond importing the runtime: the figures of
docs/performance.md.

    python scripts/measure_start.py examples/astronaut.png --backend openvino

Both are fresh processes that take turns; the first run of each is not counted, so what is compiled
is in the cache. Everything behind the image goes to `agsr infer`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 9
IMPORTS = "import numpy, onnxruntime"


def seconds(*arguments: str) -> float:
    """Wall time of a Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Take turns and print the medians."""
    image, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "out.png")
        infer = ("-m", "agsr", "infer", image, "-o", target, *options)
        rounds = [(seconds("-c", IMPORTS), seconds(*infer)) for _ in range(ROUNDS + 1)][1:]
    imports, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
    beyond = statistics.median(b - a for a, b in rounds)
    print(f"python and '{IMPORTS}': {imports:.3f} s")
    print(f"agsr infer: {whole:.3f} s, {beyond:.3f} s beyond that")


if __name__ == "__main__":
    main()
