"""Computed frames of an interrupted segment: after an error of the writer, and when damaged."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import Repeat

from agsr.engines.concurrency import BackgroundWriter
from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
from agsr.engines.video.segment_writer import Result, SegmentWriter
from agsr.engines.video.segments import open_segments, saved_frames
from agsr.engines.video.spool import Spool, count_frames
from agsr.errors import VideoError
from agsr.video.encoder import choose
from agsr.video.reader import open_video

LOSSLESS = VideoOptions(codec="ffv1")
FRAMES = 60


def _noise(path: Path) -> Path:
    """A video none of whose frames is like another."""
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25, width=32, height=32)
        for number in range(FRAMES):
            picture = rng.integers(0, 255, (48, 32), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _frames(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray().tobytes() for frame in file.decode(video=0)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _noise(tmp_path_factory.mktemp("noise") / "a.mkv")


@pytest.fixture(scope="module")
def whole(source: Path) -> list[bytes]:
    """Frames of the result of a run without a stop."""
    upscale_video(Upscaler(backend=Repeat()), source, source.with_name("whole.mkv"), LOSSLESS)
    return _frames(source.with_name("whole.mkv"))


def _fails_once(real: Callable[..., Any], at: int, error: Exception) -> Callable[..., Any]:
    calls = iter(range(10_000))

    def call(*args: Any) -> Any:
        if next(calls) == at:
            raise error
        return real(*args)

    return call


@pytest.mark.parametrize(
    ("owner", "name", "at", "error"),
    [
        (SegmentWriter, "_write", 46, OSError(errno.ENOSPC, "No space left")),
        (SegmentWriter, "_frame", 46, MemoryError("once")),
        (SegmentWriter, "_frame", 10, MemoryError("once")),
        (Spool, "_write", 10, MemoryError("once")),
    ],
)
def test_no_frame_is_lost_when_the_writer_fails_once(
    tmp_path: Path, source: Path, whole: list[bytes], owner: Any, name: str, at: int,
    error: Exception,
) -> None:  # fmt: skip
    target = tmp_path / "b.mkv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, _fails_once(getattr(owner, name), at, error))
        with pytest.raises(VideoError if isinstance(error, OSError) else type(error)):
            upscale_video(Upscaler(backend=Repeat()), source, target, LOSSLESS)
    assert saved_frames(target) == at + isinstance(error, OSError)  # spooled, then encoded
    upscale_video(Upscaler(backend=Repeat()), source, target, LOSSLESS)
    assert _frames(target) == whole


def test_no_call_is_made_after_one_that_failed() -> None:
    made = []

    def act(item: int) -> None:
        if item == 2:
            raise MemoryError("once")
        made.append(item)

    with BackgroundWriter(act, 8, finishes=True) as write:
        for item in range(6):
            write(item)
        with pytest.raises(MemoryError):
            write.finish()
    assert made == [0, 1]


def test_a_segment_with_a_gap_is_rejected(tmp_path: Path, source: Path) -> None:
    with closing(open_video(source, "a", 10_000)) as video:
        encoding, _ = choose(video.properties, (32, 32), "matroska", codec="ffv1")
    pixels = np.zeros((32, 32, 3), np.uint8)
    with (
        open_segments(tmp_path / "b.mkv", {}, "nut") as segments,
        SegmentWriter(encoding, segments) as writer,
    ):
        writer.add(Result(0, 0, pixels))
        with pytest.raises(RuntimeError, match="frame 2 of the result; expected frame 1"):
            writer.add(Result(2, 2, pixels))


def test_frames_after_a_gap_are_not_spooled(tmp_path: Path) -> None:
    encoding: Any = type("Size", (), {"width": 32, "height": 32, "pix_fmt": "yuv420p"})
    spool = Spool(tmp_path, encoding)
    for number in (0, 1, 3, 4):
        spool.add(number, av.VideoFrame(32, 32, "yuv420p"))
    spool.restart()
    assert count_frames(tmp_path / "computed-00000000.nut") == 2


def _zero_tail(data: bytearray) -> None:
    data[len(data) * 2 // 3 :] = bytes(len(data) - len(data) * 2 // 3)


def _flip_bit(data: bytearray) -> None:
    data[len(data) // 2] ^= 4


def _truncate(data: bytearray) -> None:
    del data[len(data) // 2 :]


@pytest.mark.parametrize("damage", [_zero_tail, _flip_bit, _truncate])
@pytest.mark.parametrize("ending", ["nut", "sums"])
def test_damaged_frames_are_computed_again(
    tmp_path: Path, source: Path, whole: list[bytes], damage: Callable[[bytearray], None],
    ending: str,
) -> None:  # fmt: skip
    target = tmp_path / "b.mkv"
    _interrupt(source, target, 20)
    path = tmp_path / f"b.mkv.agsr-segments/computed-00000000.{ending}"
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    intact = saved_frames(target)
    assert 8 <= intact <= 13
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target, LOSSLESS)
    assert len(backend.shapes) == FRAMES - intact
    assert _frames(target) == whole


def _interrupt(source: Path, target: Path, at: int) -> None:
    class Stops(Repeat):
        def _run(self, lr: Any) -> Any:
            if len(self.shapes) == at:
                raise KeyboardInterrupt
            return super()._run(lr)

    with pytest.raises(KeyboardInterrupt):
        upscale_video(Upscaler(backend=Stops()), source, target, LOSSLESS)


def test_a_file_without_an_intact_frame_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "b.mkv.agsr-segments"
    with open_segments(tmp_path / "b.mkv", {}, "nut"):
        (folder / "computed-00000000.nut").write_bytes(b"cut")
        (folder / "computed-00000000.sums").write_bytes(b"")
        (folder / "frames-00000048-00000095.nut").write_bytes(b"")
    with open_segments(tmp_path / "b.mkv", {}, "nut") as segments:
        assert not segments.computed
        assert not list(folder.glob("computed-*"))
