"""How much memory this process has used."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def peak_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """Largest resident memory of this process so far, bytes; None where the system doesn't tell.

    On Linux the kernel's own high-water mark: `resource.getrusage` would count the memory of the
    process that started this one, too.
    """
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if find_spec("resource") is None:
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_memory(device: str) -> int | None:
    """Memory in use on the first CUDA device, by all processes, bytes; None for a CPU."""
    if "cuda" not in device.lower() and "tensorrt" not in device.lower():
        return None
    if find_spec("torch") and "torch" in sys.modules:
        import torch

        free, total = torch.cuda.mem_get_info()
        return total - free
    from cuda.bindings import runtime

    _, free, total = runtime.cudaMemGetInfo()
    return int(total - free)
