"""``agsr bench`` in separate processes: complete, failing, and interrupted by Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from bench_results import validate
from conftest import PHOTO, ROOT

from agsr.bench.runner.results import BenchResult
from agsr.pretrained import find_onnx


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a set of one small image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGSR_DATA", raising=False)  # with it, LPIPS would be measured in torch
    (tmp_path / "Mini").mkdir()
    cv2.imwrite(str(tmp_path / "Mini" / "a.png"), cv2.imread(str(PHOTO))[:48, :64])
    return tmp_path


PROGRAM = """
import sys
from contextlib import contextmanager
from agsr.bench.runner import peak_flops
from agsr.cli import main
from agsr.cli.output import bench as console_bench

peak_flops.SIDE = 256  # the workers import this file, too

@contextmanager
def print_progress():
    yield lambda what, share: print(what, file=sys.stderr, flush=True)

if __name__ == "__main__":
    console_bench.bench_progress = print_progress
    try:
        main()
    finally:
        print("loaded:", sorted({"torch", "onnxruntime"} & sys.modules.keys()), file=sys.stderr)
"""
"""``agsr`` that reports progress without a terminal, and at the end its imports."""


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `PROGRAM` in its own process group, of which no process may remain."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(program), "bench", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        left = _group(process.pid)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
        assert left == {}


def _group(leader: int, patience: float = 5.0) -> dict[int, str]:
    """Processes of a group that still run after a grace period."""
    left: dict[int, str] = {}
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        left = dict(_members(leader))
        if not left:
            break
        time.sleep(0.05)
    return left


def _members(leader: int) -> Iterator[tuple[int, str]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it ended meanwhile
        state, _, group, *_ = text.rpartition(")")[2].split()
        if int(group) == leader and state != "Z":  # what is dead is init's to reap
            yield int(stat.parent.name), text


def test_a_whole_benchmark(
    start: Callable[..., subprocess.Popen[str]], folder: Path, checkpoint_file: Path
) -> None:
    graph = str(shutil.copy(find_onnx("psnr", 1), folder / "psnr-1.onnx"))
    process = start(
        *("-w", f"{checkpoint_file},{graph}", "-b", "ort,torch", "-s", "1", "--set", "Mini"),
        *("--size", "8x6,set", "--rounds", "1", "--json", "out/x.json", "--markdown", "x.md"),
    )
    shown, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stderr.splitlines()[-1] == "loaded: []"
    record = json.loads((folder / "out" / "x.json").read_text())
    validate(record)
    result = BenchResult.load(folder / "out" / "x.json")
    errors = {(row.entry.backend, Path(row.entry.weights).name): row.error for row in result.rows}
    assert "torch runs .safetensors files, not" in errors["torch", "psnr-1.onnx"]
    tiny = (("torch", "tiny.safetensors"), ("ort", "tiny.safetensors"))
    for ran in (("bicubic", ""), *tiny, ("ort", "psnr-1.onnx")):
        assert errors[ran] == ""
    assert {peak.library for peak in result.peaks} == {"torch", "onnxruntime cpu"}
    for text in (shown, (folder / "x.md").read_text()):
        assert "Mini, quality" in text
        assert "8x6, speed" in text
        assert "torch runs .safetensors files, not" in text


def test_nothing_that_runs_is_a_failure(
    start: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    (folder / "page.onnx").write_text("<!DOCTYPE html>")
    options = ("--size", "8x6", "--rounds", "1", "--json", "x.json")
    process = start("-b", "ort", "-w", "page.onnx", *options)
    shown, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "not an ONNX file" in shown
    assert "Error: nothing could run here" in stderr
    assert BenchResult.load(folder / "x.json").rows[1].error


def test_a_file_that_runs_nowhere_is_a_failure_beside_what_runs(
    start: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    (folder / "page.onnx").write_text("<!DOCTYPE html>")
    process = start(
        *("-b", "ort", "-s", "1", "--model", "page.onnx", "--size", "8x6", "--rounds", "1"),
    )
    shown, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "8x6, speed" in shown
    assert stderr.splitlines()[-2:] == ["Error: page.onnx: could not run here", "loaded: []"]


def test_ctrl_c_saves_finished_work_and_leaves_no_process(
    start: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    # An fp16 graph: there is no product in its precision that would take time here.
    graph = str(find_onnx("psnr", 1, "fp16"))
    options = ("--size", "8x6", "--set", "Mini", "--rounds", "1000", "--json", "x.json")
    process = start("-b", "ort", "-w", graph, *options)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("round 4"))
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # impatience loses nothing
    shown, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert "8x6, speed" in shown
    record = json.loads((folder / "x.json").read_text())
    validate(record)
    assert record["complete"] is False
    assert [len(row["quality"]) for row in record["rows"]] == [1, 1]
    assert all(len(row["timings"][0]["rounds"]) >= 3 for row in record["rows"])


@pytest.mark.parametrize(
    ("send", "number", "status"),
    [(os.killpg, signal.SIGINT, 130), (os.kill, signal.SIGTERM, 143)],
)
def test_a_signal_while_processes_start_is_quiet(
    start: Callable[..., subprocess.Popen[str]],
    folder: Path,
    send: Callable[[int, int], None],
    number: signal.Signals,
    status: int,
) -> None:
    process = start("-b", "torch", "-s", "1", "--size", "8x6", "--json", "x.json")
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("loading torch"))
    time.sleep(0.1)  # it is importing now
    send(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
    assert BenchResult.load(folder / "x.json").rows[1].timings == ()
