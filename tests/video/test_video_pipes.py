"""Videos through pipes, as streams of YUV4MPEG2."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import pytest
from clips import Clip, every_frame, make, times
from conftest import PHOTO, ROOT, Repeat
from PIL import Image

from agsr.engines.batch.stdio import Stdin, Stdout
from agsr.engines.upscaler import Upscaler
from agsr.engines.video.y4m import stream_video
from agsr.image.unsupported import describe_unsupported


def _agsr(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "agsr", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        **options,
    )


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


def test_closed_streams_are_reported(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=3))
    command = f"{sys.executable} -m agsr infer"
    for arguments, reported in (
        ("- -o - <&-", "-: stdin is empty (0 bytes)"),
        ("- -o b.mp4 <&-", "-: stdin is empty (0 bytes)"),
        ("a.mp4 -o - >&-", "-: stdout is closed"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{command} {arguments}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (1, f"Error: {reported}\n")


def test_odd_names_cost_their_own_result_only_and_steer_no_terminal(tmp_path: Path) -> None:
    names = [b"\xe4\xff.mp4", b"a\rb.mp4"]
    for name in names:
        make(tmp_path / "a.mp4", Clip(frames=2)).rename(tmp_path / os.fsdecode(name))
        (tmp_path / os.fsdecode(b"bad" + name)).write_bytes(b"nothing")
    done = _agsr("infer", "-r", ".", "--scale", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b"a\\rb_x1.mp4\n\xe4\xff_x1.mp4\n"
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
        assert "a video; name the file: agsr infer in.mp4" in str(
            describe_unsupported(content, "-")
        )
    for brand in (b"avif", b"heic", b"mif1"):
        assert describe_unsupported(b"\0\0\0\x20ftyp" + brand, "-") is None
