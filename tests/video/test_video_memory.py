"""Memory for opening and decoding follows from the size of the frames and `--max-pixels`."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, make
from conftest import ROOT

from agsr.errors import VideoError, VideoTooLargeError
from agsr.video import decoder
from agsr.video.decoder import limits
from agsr.video.packet_survey import survey
from agsr.video.reader import open_video

LIMIT = 32 * 24
"""Exactly the pixels of a clip's frame."""

_PEAK = """
import sys
from pathlib import Path
from agsr.bench.runner.memory import peak_memory
from agsr.errors import VideoError
from agsr.video.reader import open_video
before = peak_memory()
try:
    open_video(Path(sys.argv[1]), "a", 1 << 14)
except VideoError as error:
    print(peak_memory() - before, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems report the peak differently")
def test_a_frame_larger_than_its_file_declares_takes_no_memory() -> None:
    """A VP9 file of 64x48 pixels with alpha, whose first frame has 16129x12129."""
    fault = ROOT / "tests" / "faults" / "video-alpha-larger-than-declared"
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(fault)], capture_output=True, text=True, check=True
    )
    grown, _, error = done.stdout.partition(" ")
    assert "frame 0 can't be decoded" in error
    assert int(grown) < 100_000_000


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt", "options"),
    [
        (".mkv", "mjpeg", "yuvj420p", {}),
        (".mkv", "prores_ks", "yuv422p10le", {}),
        (".webm", "libvpx-vp9", "yuv420p", {"lag-in-frames": "0"}),
        (".webm", "libvpx", "yuv420p", {"lag-in-frames": "0"}),
        (".flv", "flv", "yuv420p", {"g": "1"}),
    ],
)
def test_later_frames_above_the_limit_are_not_decoded(
    tmp_path: Path, ending: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    path = _growing(tmp_path / f"a{ending}", codec, pix_fmt, options)
    with pytest.raises(VideoError, match="or more than 768 pixels"):
        _all_frames(path, LIMIT)
    with pytest.raises(VideoError, match="has 640x480 pixels, the first 32x24; cut the video"):
        _all_frames(path, 1 << 20)


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "mjpeg", "libx264", "ffv1"])
def test_frames_as_large_as_the_limit_are_decoded(tmp_path: Path, codec: str) -> None:
    """Decoders allocate borders, which don't count."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make(tmp_path / "a.avi", Clip(frames=4, codec=codec, pix_fmt=pix_fmt))
    assert _all_frames(path, LIMIT) == 4
    with pytest.raises(VideoTooLargeError, match="32x24 is 768 pixels a frame, more than 767"):
        _all_frames(path, LIMIT - 1)


def test_a_first_frame_above_the_limit_is_rejected_where_ffmpeg_reports_no_size(
    tmp_path: Path,
) -> None:
    clip = Clip(frames=2, width=640, height=480, codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(VideoError, match="more than 768"):
        _all_frames(make(tmp_path / "a.avi", clip), LIMIT)


@pytest.mark.parametrize(
    ("ending", "form", "codec"),
    [(".flv", "flv", "flv"), (".mpg", "mpeg", "libx264"), (".mpg", "mpeg", "mpeg2video")],
)
def test_first_frames_are_limited_where_ffmpeg_has_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, form: str, codec: str
) -> None:
    clip = Clip(frames=3, width=640, height=480, codec=codec)
    path = make(tmp_path / f"a{ending}", clip, form)
    assert survey(path, 640 * 480).frames == 3
    monkeypatch.setattr("agsr.video.packet_survey.open_container", _unexpected)
    with pytest.raises(VideoError, match="more than 768 pixels"):
        survey(path, LIMIT)


def _unexpected(*_: object) -> None:
    pytest.fail("FFmpeg decodes the first frames to open this file")


@pytest.mark.parametrize(
    ("free", "expected"),
    [(1 << 40, 16), (1 << 31, 8), (1 << 28, 1), (0, 1)],
)
def test_threads_follow_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    monkeypatch.setattr(decoder, "free_memory", lambda: free)
    monkeypatch.setattr(decoder, "thread_count", lambda _: 64)
    monkeypatch.setattr(decoder, "is_limited", lambda: False)
    threads, pixels = limits((3840, 2160), 1 << 27)
    assert threads == expected
    assert pixels > (1 << 27 if threads in (1, 16) else 4 * 3840 * 2160)
    assert threads == 1 or threads * 3840 * 2160 * 8 <= free // 4
    monkeypatch.setattr(decoder, "is_limited", lambda: True)
    monkeypatch.setattr(decoder, "thread_count", lambda _: 2)
    assert limits((3840, 2160), 1 << 27)[0] == min(2, expected)
    assert limits((0, 0), 1 << 27)[0] == 1


def _all_frames(path: Path, max_pixels: int) -> int:
    with closing(open_video(path, "a", max_pixels)) as video:
        return sum(1 for _ in video.frames())


def _growing(path: Path, codec: str, pix_fmt: str, options: dict[str, str]) -> Path:
    """Write three frames of 32x24 pixels, then two of 640x480, which its header doesn't mention."""
    small = _packets(codec, (32, 24), pix_fmt, options, 3)
    large = _packets(codec, (640, 480), pix_fmt, options, 2)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25, width=32, height=24)
        stream.pix_fmt, stream.options = pix_fmt, options
        stream.codec_context.open()
        for number, content in enumerate(small + large):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            out.mux(packet)
    return path


def _packets(
    codec: str, size: tuple[int, int], pix_fmt: str, options: dict[str, str], count: int
) -> list[bytes]:
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height = size
    context.pix_fmt, context.options = pix_fmt, options
    context.time_base, context.framerate = Fraction(1, 25), 25
    frame = av.VideoFrame(*size, pix_fmt)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 100
    packets = []
    for number in range(count):
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += context.encode(frame)
    return [bytes(packet) for packet in (*packets, *context.encode(None))]
