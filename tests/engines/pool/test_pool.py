"""Batches in worker processes: a worker that dies costs nothing but time, and never for ever.

A named pipe as a result holds a worker in the middle of a file for as long as a test needs.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import PHOTO
from PIL import Image

from agsr.engines.batch.plan import Job
from agsr.engines.batch.runner import InferOptions, process
from agsr.engines.pool.devices import worker_devices
from agsr.engines.pool.job_queue import JobQueue
from agsr.engines.pool.pool import WorkerPool
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendRequestError, ImageRequestError, ModelError
from agsr.system.progress import Progress


@pytest.fixture
def jobs(tmp_path: Path) -> Callable[[str], list[Job]]:
    """Three pictures; the first result goes through a pipe that is too short for it."""
    photo = Image.open(PHOTO)
    for number, name in enumerate("abc"):
        side = 24 if number else 80
        photo.crop((number, 0, number + side, side)).save(tmp_path / f"{name}.png")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a.bmp")

    def made(folder: str) -> list[Job]:
        return [
            Job(tmp_path / f"{name}.png", tmp_path / folder / f"{name}.bmp", ".bmp")
            for name in "abc"
        ]

    return made


def _kill_at(pipe: Path, pool: WorkerPool, times: int, received: list[bytes] | None) -> None:
    """Kill the worker that writes to the pipe, several times; then read from it."""
    for _ in range(times):
        with pipe.open("rb") as stream:
            stream.read(1)
            os.kill(pool.pids[0], signal.SIGKILL)
            stream.read()  # until it is dead
    if received is not None:
        received.append(pipe.read_bytes())


@contextmanager
def _killer(*arguments: Any) -> Iterator[None]:
    thread = threading.Thread(target=_kill_at, args=arguments, daemon=True)
    thread.start()
    yield
    thread.join(30)


def _plain(jobs: list[Job], weights: str) -> dict[str, bytes]:
    with Upscaler(weights, backend="ort", threads=1) as upscaler:
        assert all(done.error is None for done in process(upscaler, jobs, InferOptions()))
    return _contents(jobs[0].target.parent)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_file_whose_worker_was_killed_is_done_by_another(
    jobs: Callable[[str], list[Job]],
    onnx_file: Callable[[int], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights, batch, received = str(onnx_file(1)), jobs("out"), list[bytes]()
    reached: list[Progress] = []
    with WorkerPool("cpu:1", weights) as pool, _killer(batch[0].target, pool, 1, received):
        outcomes = list(pool.process(batch, InferOptions(), reached.append))
        assert pool.open().name == "ort"
        (last,) = pool.pids
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert sorted(outcome.job.source for outcome in outcomes) == [job.source for job in batch]
    plain = _plain(jobs("plain"), weights)
    assert {"a.bmp": received[0], **_contents(batch[0].target.parent)} == plain
    assert re.search(
        r"worker 1 was killed \(SIGKILL\), probably out of memory; trying again: \S+a\.png",
        caplog.text,
    )
    assert reached[-1] == Progress(3, 3)
    assert not _is_alive(last)


def test_a_pool_whose_workers_always_die_ends_with_the_reason(
    jobs: Callable[[str], list[Job]], onnx_file: Callable[[int], Path]
) -> None:
    batch = jobs("out")
    with (
        WorkerPool("cpu:1", str(onnx_file(1)), restarts=1) as pool,
        _killer(batch[0].target, pool, 2, None),
    ):
        outcomes = list(pool.process(batch, InferOptions()))
    errors = {outcome.job.source.name: str(outcome.error) for outcome in outcomes}
    killed = "was killed (SIGKILL), probably out of memory"
    assert f"a.png: its worker process {killed}, in two attempts; use a" in errors["a.png"]
    assert f"c.png: no worker is left: worker 1 {killed}" in errors["c.png"]
    assert len(outcomes) == 3
    assert not {"c.bmp", "a.bmp"} & _contents(batch[0].target.parent).keys()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_network_that_cannot_be_opened_is_the_same_error_as_without_a_pool(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "broken.onnx"
    weights.write_text("no network")
    with pytest.raises(ModelError) as alone:
        Upscaler(str(weights), backend="ort")
    with (
        WorkerPool("cpu:2", str(weights), backend="ort") as pool,
        pytest.raises(ModelError) as pooled,
    ):
        pool.open()
    assert str(pooled.value) == str(alone.value)


def test_the_last_files_are_not_dealt_ahead_of_other_workers() -> None:
    queue = JobQueue(4)
    first = queue.take(set(), idle=True, workers=2)
    ahead = queue.take({0}, idle=False, workers=2)
    assert (first, ahead) == (0, 1)
    assert queue.take({0, 1}, idle=False, workers=2) is None  # 2 and 3 are for who is idle first
    assert queue.take(set(), idle=True, workers=2) == 2


def test_a_lost_file_runs_alone_and_fails_at_its_second_loss_only() -> None:
    queue = JobQueue(5)
    held = {queue.take(set(), idle=True, workers=1), queue.take({0}, idle=False, workers=1)}
    assert queue.lose(held) == set()  # either may be the cause
    assert queue.take({2}, idle=True, workers=2) is None
    assert queue.take(set(), idle=True, workers=2) == 0
    assert queue.take({0}, idle=True, workers=2) is None
    assert queue.lose({0}) == {0}
    assert queue.drain() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("devices", "options", "message"),
    [
        ("tpu:0", {}, "no device 'tpu:0'; expected GPUs like cuda:0,cuda:1, or cpu:N"),
        ("cuda:0,cpu:2", {}, "no device 'cpu:2'"),
        ("", {}, "no device ''"),
        ("cpu:0", {}, "expected cpu:1 to cpu:1024"),
        ("cuda:1,cuda:1", {}, "cuda:1 is named twice"),
        ("cpu:2", {"backend": "trt"}, "trt does not run on the CPU"),
        ("cpu:2", {"backend": "ort", "provider": "cuda"}, "ort:cuda does not run on the CPU"),
        (
            "cuda:0",
            {"backend": "openvino"},
            "backend 'openvino' has no --device cuda:0; known: cpu, gpu, npu",
        ),
        ("cuda:0", {"provider": "cpu"}, "contradict"),
        ("cpu:2", {"threads": 1}, "devices and threads contradict one another"),
    ],
)
def test_devices_that_fit_nothing_are_wrong_requests(
    devices: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackendRequestError, match=re.escape(message)):
        WorkerPool(devices, "psnr", **options)


def test_workers_get_what_their_backend_accepts() -> None:
    assert [device.options for device in worker_devices("cpu:1", "psnr", {"backend": "torch"})] == [
        {"device": "cpu"}
    ]
    on_cpu = worker_devices("cpu:1", "psnr", {})
    assert [list(device.options) for device in on_cpu] == [["threads"]]
    names = [device.name for device in worker_devices("cuda:2, cuda:0", "psnr", {})]
    assert names == ["cuda:2", "cuda:0"]


def test_streams_are_rejected() -> None:
    pool = WorkerPool("cpu:1", "psnr")
    with pytest.raises(ImageRequestError, match="can't be divided among workers"):
        list(pool.process([Job(Path("-"), Path("a.png"), ".png")], InferOptions()))
