from __future__ import annotations

import os
from pathlib import Path

import pytest

from agsr.bench.runner.memory import device_memory, peak_memory

STATUS = """Name:\tpython3
VmPeak:\t  903212 kB
VmSize:\t  903212 kB
VmHWM:\t  123456 kB
VmRSS:\t  100000 kB
"""


def test_peak_is_the_kernel_s_high_water_mark(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    assert peak_memory(tmp_path / "status") == 123456 * 1024
    (tmp_path / "status").write_text("Name:\tpython3\nVmRSS:\t 1 kB\n")
    assert peak_memory(tmp_path / "status") is None


def test_peak_of_this_process_without_a_status_file_is_about_the_same() -> None:
    known, other = peak_memory(), peak_memory(Path("/nowhere"))
    assert known is not None
    assert other is not None
    assert 10e6 < known < other * 1.2


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi that prints what is in a file."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "answer"


def test_device_memory_is_that_of_all_gpus(tool: Path) -> None:
    tool.write_text("512\n1024\n")
    assert device_memory() == 1536 * 2**20


@pytest.mark.parametrize("answer", ["", "[N/A]\n", "512\n[Insufficient Permissions]\n"])
def test_unknown_device_memory_is_none(tool: Path, answer: str) -> None:
    tool.write_text(answer)
    assert device_memory() is None


def test_device_memory_without_the_tool_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert device_memory() is None
