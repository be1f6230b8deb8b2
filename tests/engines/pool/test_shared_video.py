"""One video in several workers: the same result as by one process, whichever begins or ends it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import FAST, Clip, every_frame, make, packets, times
from foreign_graphs import repeating

from agsr.engines.batch.outcome import InferOptions, Outcome
from agsr.engines.batch.plan import Job
from agsr.engines.pool.pool import WorkerPool
from agsr.engines.upscaler import Upscaler
from agsr.engines.video import upscale_video
from agsr.engines.video.segments import SegmentFolder, open_segments, saved_frames
from agsr.system.progress import Progress

STEPS = [512, 400, 700, 512, 100] * 50
CLIP = Clip(
    frames=230,
    times=[sum(STEPS[:number]) for number in range(230)],
    time_base=Fraction(1, 12800),
    audio="aac",
    metadata={"title": "A title"},
    chapters=True,
)
"""Five segments at a variable rate."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(repeating(tmp_path_factory.mktemp("network") / "a.onnx"))


@pytest.fixture(scope="module")
def pool(network: str) -> Iterator[WorkerPool]:
    with WorkerPool("cpu:2", network, backend="ort") as opened:
        yield opened


@pytest.fixture
def upscaler(network: str) -> Iterator[Upscaler]:
    with Upscaler(network, backend="ort", threads=1) as opened:
        yield opened


def _shared(
    pool: WorkerPool, source: Path, target: Path, progress: Callable[[Progress], Any] = print
) -> list[Outcome]:
    job = Job(source, target, target.suffix)
    return list(pool.process([job], InferOptions(), progress, video_options=FAST))


def _facts(path: Path) -> tuple[Any, ...]:
    with av.open(str(path)) as file:
        streams = [(s.type, s.time_base, s.metadata, s.duration) for s in file.streams]
        return dict(file.metadata), file.chapters(), streams, file.duration


def _folder(target: Path) -> Path:
    return target.with_name(target.name + ".agsr-segments")


def test_two_workers_make_what_one_process_makes_and_one_may_die(
    tmp_path: Path, pool: WorkerPool, upscaler: Upscaler, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(tmp_path / "a.mp4", CLIP)
    alone, shared = tmp_path / "alone.mp4", tmp_path / "shared.mp4"
    upscale_video(upscaler, source, alone, FAST)
    reached: list[Progress] = []
    workers = set[int]()

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not any(_folder(shared).glob("unfinished-00000048*")):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        workers.update(pool.pids)
        os.kill(pool.pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    (outcome,) = _shared(pool, source, shared, reached.append)
    killer.join()
    assert outcome.error is None
    assert outcome.size == (96, 128)
    assert len(workers) == 2
    assert re.search(r"was killed .*; trying again: \S+a\.mp4, frames \d+ to \d+", caplog.text)
    assert every_frame(shared) == every_frame(alone)
    assert times(shared) == times(alone) == times(source)
    for kind in ("video", "audio"):
        assert packets(shared, kind) == packets(alone, kind)
    assert _facts(shared) == _facts(alone)
    assert reached[-1] == Progress(1, 1)
    assert [p.done for p in reached] == sorted(p.done for p in reached)
    assert not _folder(shared).exists()


def test_either_continues_the_work_of_the_other(
    tmp_path: Path, pool: WorkerPool, upscaler: Upscaler
) -> None:
    source = make(tmp_path / "a.mkv", replace(CLIP, frames=150, audio=None, chapters=False))
    whole, first, second = (tmp_path / f"{name}.mkv" for name in ("whole", "first", "second"))
    upscale_video(upscaler, source, whole, FAST)

    def interrupt(progress: Progress) -> None:
        if progress.done > (0.5 if progress.total == 1 else 75):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(upscaler, source, first, FAST, interrupt)
    assert saved_frames(first) > 48
    before = saved_frames(first)
    shares: list[float] = []
    (outcome,) = _shared(pool, source, first, lambda progress: shares.append(progress.done))
    assert outcome.error is None
    assert shares[0] >= 48 / 150

    with pytest.raises(KeyboardInterrupt):
        _shared(pool, source, second, interrupt)
    kept = saved_frames(second)
    assert kept > 48
    made: list[Progress] = []
    upscale_video(upscaler, source, second, FAST, made.append)
    assert max(progress.reused for progress in made) == kept
    assert before < 150
    assert every_frame(first) == every_frame(second) == every_frame(whole)


def test_a_failure_costs_its_video_only_and_leaves_what_is_finished(
    tmp_path: Path, pool: WorkerPool
) -> None:
    source = make(tmp_path / "a.mp4", Clip(frames=100, options={"g": "1", "bf": "0"}))
    with av.open(str(source)) as file:
        at = [packet.pos for packet in file.demux(video=0) if packet.size][70]
    content = bytearray(source.read_bytes())
    assert at is not None
    content[at : at + 60] = bytes(60)
    source.write_bytes(content)
    (outcome,) = _shared(pool, source, tmp_path / "b.mp4")
    assert re.search(r"a\.mp4: frame 7\d can't be decoded", str(outcome.error))
    names = [path.name for path in _folder(tmp_path / "b.mp4").glob("frames-*")]
    assert names == ["frames-00000000-00000047.nut"]
    assert not (tmp_path / "b.mp4").exists()
    (outcome,) = _shared(pool, make(tmp_path / "c.mp4"), tmp_path / "d.mp4")
    assert outcome.error is None
    assert len(times(tmp_path / "d.mp4")) == 12


def test_a_segment_waits_for_the_worker_of_a_killed_command(tmp_path: Path) -> None:
    """It would write into the same files."""
    folder = tmp_path / "b.mp4.agsr-segments"
    with open_segments(tmp_path / "b.mp4", {}, "nut"):
        pass
    folder.mkdir(exist_ok=True)
    with SegmentFolder(folder, "nut").making(48):
        waiting = threading.Thread(target=_open, args=(tmp_path / "b.mp4",), daemon=True)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()


def _open(target: Path) -> None:
    with open_segments(target, {}, "nut"):
        pass
