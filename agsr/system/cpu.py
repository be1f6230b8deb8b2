"""The processor: its name, the features that matter here, and the memory beside it."""

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
"""Where Linux describes the processor; elsewhere its features are not known."""

NOTABLE = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
"""Features on which the speed of a network depends, as Linux names them, x86-64 before ARM."""

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
    """The processor's name."""
    return _field("model name") or platform.processor() or platform.machine()


def features() -> tuple[str, ...]:
    """Return those of `NOTABLE` that it has and that aren't `hidden`; empty where unknown."""
    flags = _flags()
    return tuple(name for name in NOTABLE if name in flags)


def features_known() -> bool:
    """Return True if the system lists the processor's features, as Linux does."""
    return bool(_flags())


def multiplies_bf16() -> bool:
    """Return True if the processor has bf16 products (AMX, AVX512-BF16); emulation is slower.

    False where the features are unknown; a runtime may know more, see
    `agsr.engines.runtimes.openvino_session.computes_bf16`.
    """
    return bool(_BF16 & _flags())


def multiplies_fp16() -> bool:
    """Return True if the processor has fp16 products (AMX, AVX512-FP16); False where unknown."""
    return bool(_FP16 & _flags())


def multiplies_int8() -> bool:
    """Return True if products of bytes are summed in 32 bits (VNNI, AMX); in 16 they overflow.

    True where the features are unknown, as on Windows.
    """
    return not _flags() or bool(_INT8 & _flags())


def hidden() -> frozenset[str]:
    """Return the features hidden by ``AGSR_MAX_CPU_ISA``: none, or those above a level.

    ``avx2`` hides AVX-512, VNNI, AMX and bf16, ``avx512`` AMX and bf16 only. What runs here then
    is chosen, and refused, as on such a processor. oneDNN and torch read variables of their own,
    ``ONEDNN_MAX_CPU_ISA`` and ``ATEN_CPU_CAPABILITY``.

    Raises:
        BackendError: The variable names no such level.
    """
    level = os.environ.get(ISA_VARIABLE, "").lower()
    if level and level not in _LEVELS:
        raise BackendError(
            f"{ISA_VARIABLE} is '{level}'; expected {' or '.join(sorted(_LEVELS))}, or unset it"
        )
    return _LEVELS[level] if level else frozenset()


def thread_count(asked: int | None) -> int:
    """Threads of CPU code; more than `usable_cpus` would only get in each other's way."""
    cpus = usable_cpus()
    return min(asked or cpus, cpus)


def is_limited() -> bool:
    """Return True if this process may use fewer CPUs than the machine has.

    Runtimes that choose their number of threads themselves may count those of the machine.
    """
    return usable_cpus() < (os.cpu_count() or 1)


def memory() -> int | None:
    """Main memory, bytes; None where the system doesn't tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _flags() -> frozenset[str]:
    """Return all features by their names on Linux, less the hidden ones; empty where unknown."""
    return frozenset((_field("flags") or _field("Features")).split()) - hidden()


def _field(name: str) -> str:
    """A line of the first processor's description, on Linux."""
    try:
        with CPU_INFO.open(encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith(name)), "")
    except OSError:
        return ""
    return line.partition(":")[2].strip()
