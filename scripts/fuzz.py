"""Coverage-guided fuzzing of what reads bytes from outside: see `tests/helpers/fuzz_targets.py`.

    pip install atheris                             # has wheels for CPython 3.11 to 3.13
    python scripts/fuzz.py decode CORPUS -max_total_time=600
    python scripts/fuzz.py metadata CORPUS
    python scripts/fuzz.py load CORPUS
    python scripts/fuzz.py video CORPUS

CORPUS is a folder that grows; the script puts the seeds there. Further arguments are libFuzzer's. A
fault ends the run with its traceback, and its input is left as ``crash-*``, ``timeout-*`` or
``oom-*``; ``python scripts/fuzz.py decode FILE`` runs it again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "helpers")]

with atheris.instrument_imports(include=["agsr", "PIL"]):
    import fuzz_targets
    from PIL import Image

SECONDS = 10
"""More processor time for one input is a fault."""

DEFAULTS = ["-timeout=300", "-rss_limit_mb=3000", "-max_len=65536", "-close_fd_mask=3"]
"""libFuzzer's timeout is by the clock on the wall, for what waits for ever. The mask silences
libraries, which print about what is damaged."""


def main() -> None:
    """Fuzz the target that the first argument names."""
    name, *arguments = sys.argv[1:]
    target, seeds = fuzz_targets.TARGETS[name]
    for folder in filter(Path.is_dir, map(Path, arguments[:1])):
        for seed, content in seeds().items():
            (folder / f"seed-{seed}").write_bytes(content)
    messages = os.fdopen(os.dup(2), "w", buffering=1)

    def run(content: bytes) -> None:
        start = time.process_time()
        try:
            with suppress(*fuzz_targets.EXPECTED):
                target(content)
            taken = time.process_time() - start
            if taken > SECONDS:
                raise TimeoutError(f"{taken:.0f} seconds")
        except BaseException:
            traceback.print_exc(file=messages)
            raise

    logging.disable()
    Image.MAX_IMAGE_PIXELS = None  # as in the command line
    atheris.Setup([sys.argv[0], *arguments[:1], *DEFAULTS, *arguments[1:]], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
