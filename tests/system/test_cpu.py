"""Processor features, on simulated processors, and the variable that hides some of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NEEDS_OPENVINO, Processor

from agsr.engines.runtimes import openvino_session
from agsr.engines.runtimes.openvino_session import computes_bf16
from agsr.errors import BackendError
from agsr.system import cpu

pytestmark = pytest.mark.processor

SAPPHIRE_RAPIDS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16")


@pytest.mark.parametrize(
    ("text", "name", "found", "bf16"),
    [
        (
            "model name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile amx_bf16\n",
            "Xeon",
            ("avx2", "avx512f", "avx512_bf16", "amx_bf16"),
            True,
        ),
        ("model name\t: Zen 4\nflags\t: avx512_bf16\n", "Zen 4", ("avx512_bf16",), True),
        ("model name\t: Old\nflags\t: fpu avx2 avx512_bf16x\n", "Old", ("avx2",), False),
        ("processor : 0\nFeatures : fp asimd bf16\n", None, ("asimd", "bf16"), False),
        ("", None, (), False),
    ],
)
def test_features_are_those_linux_lists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    name: str | None,
    found: tuple[str, ...],
    bf16: bool,
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.delenv(cpu.ISA_VARIABLE, raising=False)
    assert name in (None, cpu.processor.__wrapped__())
    assert cpu.features() == found
    assert cpu.multiplies_bf16() is bf16


@pytest.mark.parametrize(
    ("features", "multiplies"),
    [
        (("sse4_2", "avx"), False),
        (("avx2", "avx512f"), False),
        (("avx2", "avx_vnni"), True),
        (("avx512f", "avx512_vnni"), True),
        (("amx_int8",), True),
        ((), True),  # unknown, as on Windows
    ],
)
def test_processors_whose_int8_sums_overflow_are_known(
    play_processor: Processor, features: tuple[str, ...], multiplies: bool
) -> None:
    play_processor(*features)
    assert cpu.multiplies_int8() == multiplies


@pytest.mark.parametrize(
    ("level", "left", "int8"),
    [
        ("", SAPPHIRE_RAPIDS, True),
        ("avx512", ("avx2", "avx512f", "avx_vnni", "avx512_vnni"), True),
        ("AVX2", ("avx2",), False),
    ],
)
def test_features_above_a_level_can_be_hidden(
    play_processor: Processor,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    left: tuple[str, ...],
    int8: bool,
) -> None:
    play_processor(*SAPPHIRE_RAPIDS)
    monkeypatch.setenv(cpu.ISA_VARIABLE, level)
    assert cpu.features() == left
    assert cpu.multiplies_bf16() == (not level)
    assert cpu.multiplies_int8() == int8


def test_an_unknown_level_is_rejected(
    play_processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_processor("avx2")
    monkeypatch.setenv(cpu.ISA_VARIABLE, "sse9")
    with pytest.raises(BackendError, match="AGSR_MAX_CPU_ISA is 'sse9'; expected avx2 or avx512"):
        cpu.features()
    shown = subprocess.run(
        [sys.executable, "-m", "agsr", "doctor"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert "expected avx2 or avx512" in shown.stderr


@pytest.mark.parametrize("offered", [True, False])
def test_openvino_decides_if_the_system_lists_no_features(
    play_processor: Processor, monkeypatch: pytest.MonkeyPatch, offered: bool
) -> None:
    """As on Windows; on Linux its offer may be an emulation, and the list decides."""
    monkeypatch.setattr(
        openvino_session,
        "_runtime",
        lambda: (None, {"capabilities": ["BF16", "FP32"] if offered else ["FP32"]}),
    )
    play_processor()
    assert computes_bf16() is offered
    play_processor("avx512f")
    assert not computes_bf16()
    play_processor("avx512_bf16")
    assert computes_bf16()


def test_an_openvino_that_cannot_be_loaded_computes_nothing(
    play_processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise BackendError("no plugin")

    monkeypatch.setattr(openvino_session, "_runtime", fail)
    play_processor()
    assert not computes_bf16()


class _Core:
    """Offers bf16, as OpenVINO does where it has or emulates it."""

    def get_property(self, *_: str) -> list[str]:
        return ["INT8", "FP32", "BF16"]


@pytest.mark.parametrize(("level", "found"), [("avx2", False), ("avx512", True), ("", True)])
def test_openvino_capabilities_are_hidden_too(
    monkeypatch: pytest.MonkeyPatch, level: str, found: bool
) -> None:
    monkeypatch.setenv(cpu.ISA_VARIABLE, level)
    assert ("BF16" in openvino_session._capabilities(_Core(), "CPU")) is found


@NEEDS_OPENVINO
def test_openvino_reports_its_capabilities() -> None:
    assert {"FP32", "INT8"} <= set(openvino_session.capabilities())
