"""The processor's name and features, and the machine's main memory."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from agsr.errors import BackendError
from agsr.system.control_groups import usable_cpus

ISA_VARIABLE = "AGSR_MAX_CPU_ISA"
"""Environment variable that hides processor features above a level; see `hidden`."""

CPU_INFO = Path("/proc/cpuinfo")
"""Linux's description of the processor; on other systems its features are unknown."""

NOTABLE = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
"""Features that affect the speed of networks, by their Linux names, x86-64 before ARM."""

_NEWER_THAN_AVX512 = frozenset(
    {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "bf16", "i8mm"}
)
NEWER_THAN_AVX2 = frozenset({*_NEWER_THAN_AVX512, "avx512f", "avx_vnni", "avx512_vnni"})
"""Features that ``AGSR_MAX_CPU_ISA=avx2`` hides."""

_LEVELS = {"avx512": _NEWER_THAN_AVX512, "avx2": NEWER_THAN_AVX2}
_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
_FP16 = frozenset({"amx_fp16", "avx512_fp16"})
_INT8 = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})


@cache
def processor() -> str:
    """Return the processor's name."""
    return _field("model name") or platform.processor() or platform.machine()


def features() -> tuple[str, ...]:
    """Return the features of `NOTABLE` that it has and that aren't `hidden`; empty if unknown."""
    flags = _flags()
    return tuple(name for name in NOTABLE if name in flags)


def features_known() -> bool:
    """Return True if the system lists the processor's features, as Linux does."""
    return bool(_flags())


def multiplies_bf16() -> bool:
    """Return True if the processor has bf16 products (AMX, AVX512-BF16); emulation is slower.

    False if the features are unknown; a runtime may know more, see
    `agsr.engines.runtimes.openvino_session.computes_bf16`.
    """
    return bool(_BF16 & _flags())


def multiplies_fp16() -> bool:
    """Return True if the processor has fp16 products (AMX, AVX512-FP16); False if unknown."""
    return bool(_FP16 & _flags())


def multiplies_int8() -> bool:
    """Return True if 8-bit products accumulate in 32 bits (VNNI, AMX); in 16 bits they overflow.

    True if the features are unknown, as on Windows.
    """
    return not _flags() or bool(_INT8 & _flags())


def hidden() -> frozenset[str]:
    """Return the features hidden by ``AGSR_MAX_CPU_ISA``: none, or those above a level.

    ``avx2`` hides AVX-512, VNNI, AMX and bf16, ``avx512`` only AMX and bf16. Backends are then
    chosen and rejected as on such a processor. oneDNN and torch have their own variables,
    ``ONEDNN_MAX_CPU_ISA`` and ``ATEN_CPU_CAPABILITY``.

    Raises:
        BackendError: The variable has an unknown level.
    """
    level = os.environ.get(ISA_VARIABLE, "").lower()
    if level and level not in _LEVELS:
        raise BackendError(
            f"{ISA_VARIABLE} is '{level}'; expected {' or '.join(sorted(_LEVELS))}, or unset it"
        )
    return _LEVELS[level] if level else frozenset()


def thread_count(requested: int | None) -> int:
    """Return the number of CPU threads, at most `usable_cpus`; None means one per CPU.

    >>> thread_count(1)
    1
    """
    cpus = usable_cpus()
    return min(requested or cpus, cpus)


def is_limited() -> bool:
    """Return True if this process may use fewer CPUs than the machine has.

    Runtimes that choose their number of threads themselves may count the machine's CPUs.
    """
    return usable_cpus() < (os.cpu_count() or 1)


def memory() -> int | None:
    """Return the size of main memory in bytes; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _flags() -> frozenset[str]:
    """Return all features by their Linux names, except hidden ones; empty if unknown."""
    return frozenset((_field("flags") or _field("Features")).split()) - hidden()


def _field(name: str) -> str:
    """Return a field of the first processor's description, on Linux."""
    try:
        with CPU_INFO.open(encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith(name)), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()
