"""Breaking a video off and going on; pipes; the command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from clips import Clip, every_frame, make, packets, times
from conftest import PHOTO, ROOT, Repeat
from PIL import Image

from agsr.cli import main
from agsr.cli_video import Lines, Pace
from agsr.engines import video
from agsr.engines.raw_stream import stream_video
from agsr.engines.segments import finished, open_segments
from agsr.engines.standard_streams import Stdin, Stdout
from agsr.engines.upscaler import Upscaler
from agsr.engines.video import Progress, VideoOptions, upscale_video
from agsr.errors import VideoError
from agsr.unread import what_it_is
from agsr.video_colour import ToRgb

FAST = VideoOptions(preset="ultrafast")
SEGMENTS = "{}.agsr-segments"

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
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(source), str(target), str(pause), str(limit)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(process: subprocess.Popen[str]) -> list[str]:
    with process:
        return process.communicate(timeout=60)[0].splitlines()


def _wait_for(count: int, target: Path) -> None:
    for _ in range(3000):
        if finished(target) >= count:
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
    kept = finished(target)
    assert kept >= 3
    assert _said(_process(source, target)) == [str(230 - 48 * kept)]
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
    assert finished(tmp_path / "broken.mkv") == 1
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, tmp_path / "broken.mkv", options)
    assert len(backend.shapes) == 52
    assert every_frame(tmp_path / "broken.mkv") == every_frame(tmp_path / "whole.mkv")
    assert times(tmp_path / "broken.mkv") == times(source)


def test_other_settings_and_another_input_start_anew(
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
        "frames-00000000-00000047.nut", "lock", "made-of.json",
    }  # fmt: skip


def test_a_damaged_note_of_what_segments_are_made_of_starts_anew(tmp_path: Path) -> None:
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


def test_a_damaged_segment_is_made_anew(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4", Clip(frames=70)), tmp_path / "b.mp4"
    _break_off(source, target)
    (segment,) = (tmp_path / "b.mp4.agsr-segments").glob("frames*")
    segment.write_bytes(segment.read_bytes()[:2000])
    with pytest.raises(VideoError, match="it was removed, and the same command makes it anew"):
        upscale_video(Upscaler(backend=Repeat()), source, target, FAST)
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target, FAST)
    assert len(backend.shapes) == 48
    assert len(times(target)) == 70


def test_two_runs_do_not_make_the_same_result(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.mp4"), tmp_path / "b.mp4"

    class Twice(Repeat):
        def _run(self, lr: Any) -> Any:
            with pytest.raises(VideoError, match="another process makes it"):
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
    for path in (tmp_path / "b.mp4.agsr-segments").glob("frames-*"):
        if path != segment:
            path.unlink()
    told, made = _said(_process(source, target, limit=segment.stat().st_size // 2))
    assert told.startswith(f"VideoError {target}: can't be written: File too large")
    assert told.endswith("; 1 segments are kept")
    assert finished(target) == 1
    told, made = _said(_process(source, target, limit=int(segment.stat().st_size * 1.5)))
    assert told.startswith(f"VideoError {target}: can't be written: File too large")
    assert (made, finished(target), target.exists()) == ("52", 3, False)
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

    monkeypatch.setattr(video, "ToRgb", Counts)
    upscale_video(Upscaler(backend=Looks()), source, tmp_path / "b.mp4", FAST)
    assert any(any(name.startswith("write") for name in names) for names in seen)
    assert any("_run" in name for name in seen[0]), seen[0]
    assert len(decoded) == len(ahead) == 40
    assert 1 < max(ahead) <= video._AHEAD + 2


def _agsr(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "agsr", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        **options,
    )


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
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
    running.send_signal(signal.SIGINT)
    told = running.communicate(timeout=60)[1].splitlines()
    assert running.returncode == 130
    assert "finished segments are kept; the same command goes on there" in told[-2]
    assert told[-1] == "interrupted"
    assert finished(tmp_path / "a_x4.mp4") >= 1
    assert source.exists()


def _y4m(path: Path, pix_fmt: str, frames: int = 5) -> bytes:
    clip = Clip(frames=frames, codec="wrapped_avframe", pix_fmt=pix_fmt)
    with av.open(str(path), "w", format="yuv4mpegpipe", options={"strict": "-1"}):
        pass
    return make(path, clip, "yuv4mpegpipe").read_bytes()


def test_frames_flow_through_pipes_one_by_one(tmp_path: Path) -> None:
    content = make(tmp_path / "a.y4m", Clip(frames=5, codec="wrapped_avframe")).read_bytes()
    size = 32 * 24 * 3 // 2 + len(b"FRAME\n")
    header = content[: content.index(b"\n") + 1]
    with subprocess.Popen(
        [sys.executable, "-m", "agsr", "infer", "-", "-o", "-", "--steps", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(content[: len(header) + size])
        first = b""
        while len(first) < 60 + size * 16:  # the first comes before the second is sent
            first += running.stdout.read(1)
            if first.endswith(b"\n") and len(first) < 200 and first.count(b"\n") == 1:
                assert first.startswith(b"YUV4MPEG2 W128 H96 F25:1 Ip A0:0 C420mpeg2")
                wanted = len(first) + 6 + 128 * 96 * 3 // 2
                while len(first) < wanted:
                    first += running.stdout.read(wanted - len(first))
                break
        running.stdin.write(content[len(header) + size :])
        running.stdin.close()
        rest = running.stdout.read()
        while more := running.stdout.read():
            rest += more
    assert running.returncode == 0
    (tmp_path / "b.y4m").write_bytes(first + rest)
    assert len(every_frame(tmp_path / "b.y4m")) == 5


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "yuv444p12le", "gray", "gray10le"])
def test_pipes_keep_depth_and_chroma(tmp_path: Path, pix_fmt: str) -> None:
    source = tmp_path / "a.mkv"
    clip = Clip(frames=3, codec="ffv1", pix_fmt=pix_fmt, tags=(9, 16, 9, 1))
    make(source, clip)
    with (tmp_path / "b.y4m").open("wb") as sink:
        stream_video(Upscaler(backend=Repeat()), source, sink)
    with av.open(str(tmp_path / "b.y4m")) as file:
        context: Any = file.streams.video[0].codec_context
        assert (context.pix_fmt, context.width, context.height) == (pix_fmt, 128, 96)
        assert context.color_range == 1
    assert len(every_frame(tmp_path / "b.y4m")) == 3


def test_a_stream_becomes_a_file_and_a_file_a_stream(tmp_path: Path) -> None:
    content = make(tmp_path / "a.y4m", Clip(frames=5, codec="wrapped_avframe")).read_bytes()
    done = _agsr("infer", "-", "-o", "b.mp4", "--steps", "1", cwd=tmp_path, input=content)
    assert (done.returncode, done.stdout) == (0, b"b.mp4\n"), done.stderr
    assert len(times(tmp_path / "b.mp4")) == 5
    back = _agsr("infer", "b.mp4", "-o", "-", "--scale", "1", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert back.stdout.startswith(b"YUV4MPEG2 W128 H96 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.y4m", "b.mp4"]


def test_a_stream_that_ends_within_a_frame_is_no_success(tmp_path: Path) -> None:
    content = make(tmp_path / "a.y4m", Clip(frames=5, codec="wrapped_avframe")).read_bytes()
    for cut in (1, 300):
        for target in ("-", "b.mp4"):
            done = _agsr(
                "infer", "-", "-o", target, "--steps", "1", cwd=tmp_path, input=content[:-cut]
            )
            assert done.returncode == 1
            assert b"-: truncated: it ends within frame 4" in done.stderr
    assert not (tmp_path / "b.mp4").exists()


def test_a_full_pipe_that_does_not_block_gets_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does an empty one end the stream: both are waited for."""
    source, (reading, writing) = make(tmp_path / "a.mp4", Clip(frames=30)), os.pipe()
    content: list[bytes] = []

    def read_late() -> None:
        time.sleep(0.2)
        with open(reading, "rb") as pipe:  # noqa: PTH123  # of a descriptor
            content.append(pipe.read())

    reader = threading.Thread(target=read_late)
    reader.start()
    os.set_blocking(writing, False)
    with open(writing, "w") as pipe, monkeypatch.context() as patched:  # noqa: PTH123
        patched.setattr(sys, "stdout", pipe)
        stream_video(Upscaler(backend=Repeat()), source, Stdout())
    reader.join()
    (tmp_path / "b.y4m").write_bytes(content[0])
    assert len(every_frame(tmp_path / "b.y4m")) == 30

    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    threading.Timer(0.1, lambda: (os.write(writing, b"late"), os.close(writing))).start()
    with open(reading) as pipe:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", pipe)
        assert (Stdin().read(9), Stdin().read(9)) == (b"late", b"")


def test_closed_streams_are_told(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=3))
    command = f"{sys.executable} -m agsr infer"
    for arguments, told in (
        ("- -o - <&-", "-: nothing came from stdin (0 bytes)"),
        ("- -o b.mp4 <&-", "-: nothing came from stdin (0 bytes)"),
        ("a.mp4 -o - >&-", "-: stdout is closed"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{command} {arguments}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (1, f"Error: {told}\n")


def test_odd_names_cost_their_own_result_only_and_steer_no_terminal(tmp_path: Path) -> None:
    names = [b"\xe4\xff.mp4", b"a\rb.mp4"]
    for name in names:
        make(tmp_path / "a.mp4", Clip(frames=2)).rename(tmp_path / os.fsdecode(name))
        (tmp_path / os.fsdecode(b"bad" + name)).write_bytes(b"nothing")
    done = _agsr("infer", "-r", ".", "--scale", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b"a\rb_x1.mp4\n\xe4\xff_x1.mp4\n"
    assert b"\r" not in done.stderr
    assert b"\xff" not in done.stderr
    assert rb"Error: bada\rb.mp4: not a video" in done.stderr
    assert rb"Error: bad\udce4\udcff.mp4: not a video" in done.stderr
    assert b"2 upscaled, 2 failed" in done.stderr


def test_a_closed_pipe_ends_in_one_line(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=30))
    command = f"{sys.executable} -m agsr infer a.mp4 -o - --scale 1 | head -c 100 >/dev/null"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: a.mp4: stdout was closed after")


def test_photos_through_pipes_are_still_photos(tmp_path: Path) -> None:
    Image.open(PHOTO).crop((0, 0, 20, 16)).save(tmp_path / "a.png")
    done = _agsr("infer", "-", input=(tmp_path / "a.png").read_bytes())
    assert (done.returncode, done.stdout[:4]) == (0, b"\x89PNG"), done.stderr
    assert _agsr("infer", "-", input=b"YUV4").returncode == 1


def test_a_video_that_comes_as_an_image_is_called_one(tmp_path: Path) -> None:
    codecs = {"a.mp4": "libx264", "a.mov": "libx264", "a.mkv": "ffv1", "a.avi": "mpeg4"}
    for name, codec in codecs.items():
        content = make(tmp_path / name, Clip(frames=2, codec=codec)).read_bytes()
        assert "a video; name the file: agsr infer in.mp4" in str(what_it_is(content, "-"))
    for brand in (b"avif", b"heic", b"mif1"):
        assert what_it_is(b"\0\0\0\x20ftyp" + brand, "-") is None


def test_folders_of_both_are_upscaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    Image.open(PHOTO).crop((0, 0, 20, 16)).save("in/a.png")
    make(Path("in/b.mp4"), Clip(frames=3))
    make(Path("in/c.avi"), Clip(frames=3, codec="mpeg4"))
    Path("in/bad.mkv").write_bytes(b"nothing")
    options = ("infer", "-r", "in", "-o", "out", "--steps", "1", "--preset", "ultrafast")
    dry = CliRunner().invoke(main, [*options, "--dry-run"])
    assert dry.stdout.splitlines() == [
        "in/a.png → out/a_x4.png",
        "in/b.mp4 → out/b_x4.mp4",
        "in/bad.mkv → out/bad_x4.mkv",
        "in/c.avi → out/c_x4.mkv",
    ]
    done = CliRunner().invoke(main, list(options))
    assert done.exit_code == 1
    assert done.stdout.split() == ["out/a_x4.png", "out/b_x4.mp4", "out/c_x4.mkv"]
    assert "Error: in/bad.mkv: not a video, or truncated" in done.stderr
    assert "3 upscaled, 1 failed" in done.stderr
    Path("in/bad.mkv").unlink()
    again = CliRunner().invoke(main, [*options, "--skip-existing"])
    assert (again.exit_code, again.stdout) == (0, "")
    assert "3 already there" in again.stderr
    other = CliRunner().invoke(main, [*options, "--ext", "webm", "-n"])
    assert "in/b.mp4 → out/b_x4.webm" in other.stdout
    assert "in/a.png → out/a_x4.png" in other.stdout


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("b.mp4", "x.png", "a video can't become .png"),
        ("a.png", "x.mp4", "an image can't become a video"),
    ],
)
def test_images_and_videos_do_not_become_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(source).touch()
    done = CliRunner().invoke(main, ["infer", source, "-o", target])
    assert done.exit_code == 1
    assert message in done.stderr


def test_the_pace_leaves_out_what_was_kept() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.told(Progress(48, 148, 48)) == "48/148 frames"
    now[0] = 10.0
    assert pace.told(Progress(68, 148, 48)) == "68/148 frames  2.00 frames/s  40 s left"
    assert pace.told(Progress(68, None, 48)) == "68/? frames  2.00 frames/s"


def test_without_a_terminal_a_line_now_and_then_tells_how_far_a_video_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    lines = Lines("a\r.mp4", lambda: now[0])
    for second in range(71):
        now[0] = float(second)
        lines.update(Progress(second, 100, 0))
    assert capsys.readouterr().err.splitlines() == [
        "a\\r.mp4: 30/100 frames  1.00 frames/s  70 s left",
        "a\\r.mp4: 60/100 frames  1.00 frames/s  40 s left",
    ]


def test_what_a_video_can_not_become_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    source, backend = make(tmp_path / "a.mp4", Clip(frames=3)), Repeat()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "same.mp4").hardlink_to(source)
    (tmp_path / "plain").touch()
    for target, told in (
        ("folder.mp4", "Is a directory"),
        ("same.mp4", "is the same file"),
        ("plain/b.mp4", "Not a directory"),
    ):
        with pytest.raises(VideoError, match=told):
            upscale_video(Upscaler(backend=backend), source, tmp_path / target, FAST)
    assert not backend.shapes


def test_a_disk_without_room_for_the_source_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(tmp_path / "a.mp4", Clip(frames=3))
    usage = shutil.disk_usage(tmp_path)._replace(free=source.stat().st_size - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    upscale_video(Upscaler(backend=Repeat()), source, tmp_path / "b.mp4", FAST)
    assert f"{usage.free} bytes are free on its disk, and its source alone has" in caplog.text


def test_a_video_smaller_than_asked_is_told_and_not_in_the_rate_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.mp4", Clip(frames=2))
    Image.open(PHOTO).crop((0, 0, 20, 16)).save("b.png")
    done = CliRunner().invoke(main, ["infer", "a.mp4", "b.png", "--steps", "1", "--max-size", "99"])
    assert "note: 1 of 2 results are smaller" in done.stderr  # of 20 pixels, 80
    assert " for 1 images, " in done.stderr
    done = CliRunner().invoke(main, ["infer", "a.mp4", "--steps", "1", "--max-size", "999"])
    assert "note: the result is smaller than was asked for" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("a.mp4 --quality 50", "--quality has no effect: no result is an image"),
        ("a.mp4 --ext png", "--ext has no effect: no result is an image"),
        ("p.png --ext mp4", "--ext has no effect: no result is a video file"),
        ("p.png --crf 10", "--crf has no effect: no result is a video file"),
        ("a.mp4 -o - --codec hevc", "--codec has no effect: no result is a video file"),
        ("- -o - --preset fast", "--preset has no effect: no result is a video file"),
    ],
)
def test_options_of_results_that_there_are_not_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "p.png"):
        Path(name).touch()
    done = CliRunner().invoke(main, ["infer", *options.split()])
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    mixed = CliRunner().invoke(
        main, ["infer", "a.mp4", "p.png", "--crf", "9", "--quality", "9", "-n", "--ext", "jpg"]
    )
    assert mixed.exit_code == 0, mixed.stderr
