"""Breaking a video off and going on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import FAST, Clip, every_frame, make, packets, times
from conftest import PYTHONPATH, ROOT, Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, frames, upscale_video
from agsr.engines.video.segments import open_segments, saved_frames
from agsr.engines.video.spool import Spool, count_frames
from agsr.errors import BackendError, VideoError
from agsr.video.colour import ToRgb
from agsr.video.encoder import choose
from agsr.video.reader import open_video

# A process that upscales by repeating pixels, in as many seconds as frames are to be seen.
PROCESS = """
import resource, signal, sys, time
from pathlib import Path
from stubs import Repeat
from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source, target, pause, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
class Slow(Repeat):
    def _run(self, lr):
        time.sleep(float(pause))
        return super()._run(lr)
backend = Slow()
try:
    upscale_video(Upscaler(backend=backend), Path(source), Path(target))
except Exception as error:
    print(type(error).__name__, error)
print(len(backend.shapes))
"""


def _process(source: Path, target: Path, pause: float = 0, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(source), str(target), str(pause), str(limit)],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdout=subprocess.PIPE,
        text=True,
    )


def _finished(target: Path) -> int:
    """How many segments of a result lie beside it."""
    return len(list(target.with_name(target.name + ".agsr-segments").glob("frames-*")))


def _said(process: subprocess.Popen[str]) -> list[str]:
    with process:
        return process.communicate(timeout=60)[0].splitlines()


def _wait_for(count: int, target: Path) -> None:
    for _ in range(3000):
        if _finished(target) >= count:
            return
        time.sleep(0.01)
    raise AssertionError("no segment")


def test_a_killed_run_goes_on_and_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    steps = [512, 400, 700, 512, 100] * 60
    shown = [sum(steps[:number]) for number in range(230)]
    clip = Clip(frames=230, times=shown, time_base=av_time(12800), audio="aac")
    source = make(tmp_path / "a.mp4", clip)
    assert _said(_process(source, tmp_path / "whole.mp4")) == ["230"]
    target = tmp_path / "broken.mp4"
    for count in (1, 3):
        running = _process(source, target, pause=0.004)
        _wait_for(count, target)
        time.sleep(0.05)
        running.kill()
        assert _said(running) == []
        assert not target.exists()
    kept, saved = _finished(target), saved_frames(target)
    assert kept >= 3
    (made,) = _said(_process(source, target))
    assert 230 - saved <= int(made) <= 230 - 48 * kept
    assert every_frame(target) == every_frame(tmp_path / "whole.mp4")
    assert times(target) == times(tmp_path / "whole.mp4") == times(source)
    assert packets(target, "audio") == packets(source, "audio")
    assert packets(target, "video") == packets(tmp_path / "whole.mp4", "video")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.mp4", "broken.mp4", "whole.mp4"]


def av_time(units: int) -> Any:
    from fractions import Fraction

    return Fraction(1, units)


class Stops(Repeat):
    """Is interrupted at a frame."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def _run(self, lr: Any) -> Any:
        if len(self.shapes) == self._at:
            raise KeyboardInterrupt
        return super()._run(lr)


def _break_off(source: Path, target: Path, at: int = 60) -> None:
    with pytest.raises(KeyboardInterrupt):
        upscale_video(Upscaler(backend=Stops(at)), source, target, FAST)


@pytest.mark.parametrize("codec", ["hevc", "vp9", "av1", "ffv1", "prores"])
def test_every_codec_goes_on_to_the_same_frames(tmp_path: Path, codec: str) -> None:
    source = make(tmp_path / "a.mkv", Clip(frames=100))
    preset = {"hevc": "ultrafast", "av1": "12", "vp9": "8"}.get(codec)
    options = VideoOptions(codec=codec, preset=preset)
    upscale_video(Upscaler(backend=Repeat()), source, tmp_path / "whole.mkv", options)
    with pytest.raises(KeyboardInterrupt):
        upscale_video(Upscaler(backend=Stops(60)), source, tmp_path / "broken.mkv", options)
    assert _finished(tmp_path / "broken.mkv") == 1
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, tmp_path / "broken.mkv", options)
    assert len(backend.shapes) == 100 - 60
    assert packets(tmp_path / "broken.mkv", "video") == packets(tmp_path / "whole.mkv", "video")
    assert every_frame(tmp_path / "broken.mkv") == every_frame(tmp_path / "whole.mkv")
    assert times(tmp_path / "broken.mkv") == times(source)


def test_frames_of_an_interrupted_segment_are_not_computed_again(tmp_path: Path) -> None:
    """However often it is interrupted, and whatever a kill tears off the last file."""
    source = make(tmp_path / "a.mp4", Clip(frames=40))
    upscale_video(Upscaler(backend=Repeat()), source, tmp_path / "whole.mp4")
    target = tmp_path / "b.mp4"
    for at, saved in ((12, 12), (3, 15), (9, 24)):
        with pytest.raises(KeyboardInterrupt):
            upscale_video(Upscaler(backend=Stops(at)), source, target)
        assert (saved_frames(target), _finished(target)) == (saved, 0)
    files = sorted((tmp_path / "b.mp4.agsr-segments").glob("computed-*.nut"))
    assert [path.name[9:17] for path in files] == ["00000000", "00000012", "00000015"]
    torn = files[-1].read_bytes()
    files[-1].write_bytes(torn[: len(torn) * 3 // 4])
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target)
    assert 40 - 24 < len(backend.shapes) < 40 - 15
    assert packets(target, "video") == packets(tmp_path / "whole.mp4", "video")
    assert not (tmp_path / "b.mp4.agsr-segments").exists()


def test_an_error_saves_the_frames_before_it(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4", Clip(frames=30)), tmp_path / "b.mp4"

    class Fails(Stops):
        def _run(self, lr: Any) -> Any:
            try:
                return super()._run(lr)
            except KeyboardInterrupt:
                raise BackendError("the device is gone") from None

    with pytest.raises(BackendError):
        upscale_video(Upscaler(backend=Fails(20)), source, target, FAST)
    assert saved_frames(target) == 20


def test_writing_computed_frames_costs_a_small_share_of_the_time(tmp_path: Path) -> None:
    """Where frames come faster than they are written, a segment's first ones are enough."""
    now = iter(range(10_000))  # each call of the clock is a second later
    source = make(tmp_path / "a.mp4", Clip(frames=9))
    with closing(open_video(source, "a", 10_000)) as video:
        encoding, _ = choose(video.properties, (96, 128), "mp4")
    spool = Spool(tmp_path, encoding, lambda: float(next(now)))
    frame = av.VideoFrame(128, 96, "yuv420p")
    for number in range(30):
        spool.add(number, frame)
    spool.restart()
    assert count_frames(tmp_path / "computed-00000000.nut") == 3
    spool.add(48, frame)
    spool.restart()
    assert count_frames(tmp_path / "computed-00000048.nut") == 1


def test_other_settings_and_another_input_start_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = make(tmp_path / "a.mp4", Clip(frames=70)), tmp_path / "b.mp4"
    _break_off(source, target)
    backend = Repeat()
    upscale_video(
        Upscaler(backend=backend), source, target, VideoOptions(preset="ultrafast", crf=30)
    )
    assert len(backend.shapes) == 70
    assert "1 segments of another input or other settings removed" in caplog.text
    _break_off(source, target, at=10)
    upscale_video(Upscaler(backend=Repeat()), source, target, VideoOptions(crf=40))
    assert "frames of another input or other settings removed" in caplog.messages[-1]
    _break_off(source, target)
    make(source, Clip(frames=50))
    upscale_video(Upscaler(backend=backend), source, target, FAST)
    assert len(backend.shapes) == 70 + 50
    assert not (tmp_path / "b.mp4.agsr-segments").exists()


def test_an_older_result_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4", Clip(frames=70)), tmp_path / "b.mp4"
    target.write_bytes(b"older")
    _break_off(source, target)
    assert target.read_bytes() == b"older"
    assert {path.name for path in (tmp_path / "b.mp4.agsr-segments").iterdir()} == {
        "computed-00000048.nut", "computed-00000048.sums",
        "frames-00000000-00000047.nut", "lock", "made-of.json",
    }  # fmt: skip


def test_a_damaged_note_of_what_segments_are_made_of_starts_over(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4", Clip(frames=60)), tmp_path / "b.mp4"
    _break_off(source, target, at=50)
    (tmp_path / "b.mp4.agsr-segments" / "made-of.json").write_bytes(b"\xff\xfe")
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target, FAST)
    assert len(backend.shapes) == 60


def test_a_folder_without_segments_goes_while_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    release, there = filelock.FileLock.release, []

    def look(lock: filelock.FileLock, *args: Any, **kwargs: Any) -> None:
        there.append(Path(lock.lock_file).parent.exists())
        release(lock, *args, **kwargs)

    monkeypatch.setattr(filelock.FileLock, "release", look)
    with open_segments(tmp_path / "b.mp4", {}, "nut"):
        pass
    assert there[0] is False


def test_a_folder_removed_by_a_finishing_process_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the creation of the folder and its lock, and between the lock and its use."""
    import filelock

    acquire, folder = filelock.FileLock.acquire, tmp_path / "b.mp4.agsr-segments"
    moments = ["after", "before"]

    def late(lock: filelock.FileLock, *args: Any, **kwargs: Any) -> Any:
        moment = moments.pop(0) if moments else "never"
        if moment == "before":
            shutil.rmtree(folder)
        locked = acquire(lock, *args, **kwargs)
        if moment == "after":
            shutil.rmtree(folder)
        return locked

    monkeypatch.setattr(filelock.FileLock, "acquire", late)
    with open_segments(tmp_path / "b.mp4", {}, "nut"):
        assert (folder / "lock").exists()
        assert (folder / "made-of.json").exists()
    assert not moments


def test_a_damaged_segment_is_rebuilt(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4", Clip(frames=70)), tmp_path / "b.mp4"
    _break_off(source, target)
    (segment,) = (tmp_path / "b.mp4.agsr-segments").glob("frames*")
    segment.write_bytes(segment.read_bytes()[:2000])
    with pytest.raises(
        VideoError, match="it was removed; run the same command again to rebuild it"
    ):
        upscale_video(Upscaler(backend=Repeat()), source, target, FAST)
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target, FAST)
    assert len(backend.shapes) == 48
    assert len(times(target)) == 70


def test_two_runs_do_not_make_the_same_result(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4"), tmp_path / "b.mp4"

    class Twice(Repeat):
        def _run(self, lr: Any) -> Any:
            with pytest.raises(VideoError, match="another process is writing it"):
                upscale_video(Upscaler(backend=Repeat()), source, target, FAST)
            return super()._run(lr)

    upscale_video(Upscaler(backend=Twice()), source, target, FAST)
    assert len(times(target)) == 12


def test_a_full_disk_keeps_finished_segments(tmp_path: Path) -> None:
    """Of files as large as a segment, but not as the whole."""
    rng = np.random.default_rng(0)
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as out:
        video: Any = out.add_stream("ffv1", rate=25, width=64, height=48)
        for number in range(100):
            noise = rng.integers(0, 255, (72, 64), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="yuv420p")
            frame.pts = number
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    target = tmp_path / "b.mp4"
    running = _process(source, target, pause=0.002)
    _wait_for(1, target)
    running.kill()
    running.communicate()
    (segment,) = (tmp_path / "b.mp4.agsr-segments").glob("frames-00000000*")
    for path in (tmp_path / "b.mp4.agsr-segments").glob("*-*"):
        if path not in (segment, segment.with_name("made-of.json")):
            path.unlink()
    reported, made = _said(_process(source, target, limit=segment.stat().st_size // 2))
    assert reported.startswith(f"VideoError {target}: can't be written: File too large")
    assert "; 48 frames are saved; the same command continues there" in reported
    assert _finished(target) == 1
    reported, made = _said(_process(source, target, limit=int(segment.stat().st_size * 1.5)))
    assert reported.startswith(f"VideoError {target}: can't be written: File too large")
    assert (made, _finished(target), target.exists()) == ("52", 3, False)
    assert _said(_process(source, target)) == ["0"]
    assert len(times(target)) == 100


def test_pictures_are_decoded_and_encoded_while_the_network_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only a few ahead: memory does not grow with the length."""
    source, seen, ahead = make(tmp_path / "a.mp4", Clip(frames=40)), [], []
    decoded: list[Any] = []

    class Counts(ToRgb):
        def __call__(self, frame: Any) -> Any:
            decoded.append(frame.pts)
            return super().__call__(frame)

    class Looks(Repeat):
        def _run(self, lr: Any) -> Any:
            time.sleep(0.01)  # so that all could be decoded meanwhile
            ahead.append(len(decoded) - len(self.shapes))
            seen.append({thread.name for thread in threading.enumerate()})
            return super()._run(lr)

    monkeypatch.setattr(frames, "ToRgb", Counts)
    upscale_video(Upscaler(backend=Looks()), source, tmp_path / "b.mp4", FAST)
    assert any(any(name.startswith("write") for name in names) for names in seen)
    assert "prefetch" in seen[0], seen[0]
    assert len(decoded) == len(ahead) == 40
    assert 1 < max(ahead) <= frames.AHEAD + 2


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_it_saying_what_is_kept(
    tmp_path: Path, number: signal.Signals, status: int, word: str
) -> None:
    source = make(tmp_path / "a.mp4", Clip(frames=400))
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # none in the background
        "from agsr.cli import main\n"
        "main(['infer', 'a.mp4', '--steps', '1'])\n"
    )
    command = [sys.executable, "-c", program]
    running = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    _wait_for(1, tmp_path / "a_x4.mp4")
    running.send_signal(number)
    reported = running.communicate(timeout=60)[1].splitlines()
    assert running.returncode == status
    frames = saved_frames(tmp_path / "a_x4.mp4")
    assert reported[-2].endswith(
        f"a_x4.mp4: {frames} frames are saved; run the same command again to continue from there"
    )
    assert reported[-1] == word
    assert _finished(tmp_path / "a_x4.mp4") >= 1
    assert source.exists()
