"""Memory of a backend that runs many sizes: it may not grow with every new one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CPU_BACKENDS, ROOT

SIZES = """
import itertools, os, sys
import numpy as np
from agsr.engines.open import open_backend
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
backend = open_backend(sys.argv[1], "psnr", steps=1, precision="fp32")
sizes = [(h, w) for h in range(8, 20) for w in range(8, 28)]
backend.upscale(np.zeros((1, 3, 28, 28), np.float32))
start, grown = resident(), []
for number, (height, width) in enumerate(sizes, 1):
    backend.upscale(np.zeros((1, 3, height, width), np.float32))
    if number in (60, 240):
        grown.append(resident() - start)
print(*grown)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux's file")
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_memory_does_not_grow_with_every_new_size(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIZES, backend],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = map(int, done.stdout.split())
    assert many < 2 * max(few, 40 << 20)  # four times as many sizes
