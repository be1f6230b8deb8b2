"""Peak memory of this process, and GPU memory in use."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from agsr.bench.doctor import output_of

_STATUS = Path("/proc/self/status")
_USED = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


def peak_memory(status: Path = _STATUS) -> int | None:
    """Return the peak resident memory of this process in bytes; None if unknown.

    On Linux this is the kernel's high-water mark: `resource.getrusage` would also count the memory
    of the parent process.
    """
    if status.is_file():
        lines = (line.split() for line in status.read_text().splitlines())
        return next((int(x[1]) * 1024 for x in lines if x and x[0] == "VmHWM:"), None)
    if find_spec("resource") is None:
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_memory() -> int | None:
    """Return the memory in use on all NVIDIA GPUs, by all processes, in bytes; None if unknown.

    Calls ``nvidia-smi``, since a CUDA context would allocate memory itself.
    """
    lines = output_of(*_USED).splitlines()
    if not lines or not all(line.strip().isdecimal() for line in lines):
        return None
    return sum(int(line) for line in lines) * 2**20
