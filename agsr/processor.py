"""The processor: its name, the features that matter here, and the memory beside it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux describes the processor; elsewhere its features are not known."""

NOTABLE = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
"""Features on which the speed of a network depends, as Linux names them, x86-64 before ARM."""

_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
_INT8 = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})


@cache
def processor() -> str:
    """The processor's name."""
    return _field("model name") or platform.processor() or platform.machine()


@cache
def features() -> tuple[str, ...]:
    """Those of `NOTABLE` that it has; empty where the system doesn't tell."""
    flags = _flags()
    return tuple(name for name in NOTABLE if name in flags)


def multiplies_bf16() -> bool:
    """Whether it multiplies bf16 by itself (AMX or AVX512-BF16); emulated, that is slower."""
    return bool(_BF16 & set(features()))


def multiplies_int8() -> bool:
    """Whether it sums products of bytes in 32 bits (VNNI, AMX); older ones do in 16, and overflow.

    True where the system doesn't tell, as on Windows.
    """
    return not _flags() or bool(_INT8 & _flags())


def thread_count(asked: int | None) -> int:
    """Threads of CPU code; more than cores would only get in each other's way."""
    cores = os.cpu_count() or 1
    return min(asked or cores, cores)


def memory() -> int | None:
    """Main memory, bytes; None where the system doesn't tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _flags() -> frozenset[str]:
    """All features, as Linux names them; empty where the system doesn't tell."""
    return frozenset((_field("flags") or _field("Features")).split())


def _field(name: str) -> str:
    """A line of the first processor's description, on Linux."""
    try:
        with CPU_INFO.open(encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith(name)), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()
