"""Shares of the CPUs for several processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agsr.system import memory
from agsr.system.child_process import exit_reason
from agsr.system.control_groups import usable_cpus
from agsr.system.cpu_shares import _ordered, bind, cpu_shares, divided, limit_threads


@pytest.mark.parametrize(("cpus", "count"), [(8, 3), (2, 5), (7, 7), (1, 1)])
def test_shares_cover_all_cpus_and_none_is_empty(cpus: int, count: int) -> None:
    parts = divided(range(cpus), count)
    assert len(parts) == count
    assert all(parts)
    assert {cpu for part in parts for cpu in part} == set(range(cpus))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_threads_of_a_core_belong_to_one_share(tmp_path: Path) -> None:
    for cpu, core in enumerate([0, 1, 0, 1]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{core}\n")
    assert divided(_ordered([0, 1, 2, 3], tmp_path), 2) == [(0, 2), (1, 3)]


def test_every_share_has_as_many_threads() -> None:
    assert {share.threads for share in cpu_shares(3)} == {max(1, usable_cpus() // 3)}


def test_a_process_is_bound_to_its_share() -> None:
    before = os.sched_getaffinity(0)
    try:
        bind([min(before)])
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_a_lower_limit_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OPENCV_FOR_THREADS_NUM", "64")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    limit_threads(4)
    names = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS")
    assert [os.environ[name] for name in names] == ["1", "4", "4"]


def test_processes_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_available", lambda: 6 << 20)
    monkeypatch.setattr(memory, "_sharers", 1)
    memory.share_memory(3)
    assert memory.free_memory() == 2 << 20


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-9, "was killed (SIGKILL), probably out of memory"),
        (-15, "was killed (SIGTERM)"),
        (-11, "crashed (SIGSEGV)"),
        (0, "exited with status 0"),
    ],
)
def test_the_end_of_a_process_is_described(code: int, reason: str) -> None:
    assert exit_reason(code) == reason
