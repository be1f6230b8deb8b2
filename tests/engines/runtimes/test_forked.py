"""Backends that were loaded before a process forked, and loaded again in the child."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import CPU_BACKENDS, ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")

FORK = """
import os, signal, sys, warnings
import numpy as np
from agsr import Upscaler
backend, image = sys.argv[1], np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
upscaler = Upscaler("psnr", steps=1, backend=backend)
expected = upscaler(image)
warnings.simplefilter("ignore")  # newer Pythons warn of threads
child = os.fork()
if not child:
    signal.alarm(60)  # ends a child that hangs
    assert np.array_equal(upscaler(image), expected)
    upscaler = Upscaler("psnr", steps=1, backend=backend)
    assert np.array_equal(upscaler(image), expected)
    del upscaler
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_forked_child_upscales(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, backend],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n", done.stderr
    assert ("get_context('spawn')" in done.stderr) == (backend == "torch")
