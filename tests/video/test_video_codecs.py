"""What encodes videos: chosen, refused, and trusted no further than needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from clips import Clip, make, picture_stream, times, upscale
from conftest import PYTHONPATH, Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
from agsr.errors import VideoError


@pytest.mark.parametrize(
    ("codec", "name", "pix_fmt"),
    [
        ("av1", "libdav1d", "yuv420p"),
        ("prores", "prores", "yuv422p10le"),
        ("ffv1", "ffv1", "yuv420p"),
        ("hevc", "hevc", "yuv420p"),
        ("vp9", "vp9", "yuv420p"),
    ],
)
def test_codecs_can_be_chosen(tmp_path: Path, codec: str, name: str, pix_fmt: str) -> None:
    given = make(tmp_path / "a.mp4", Clip(frames=50))
    preset = {"hevc": "ultrafast", "av1": "12", "vp9": "8"}.get(codec)
    upscale(given, tmp_path / "b.mkv", VideoOptions(codec=codec, preset=preset))
    stream = picture_stream(tmp_path / "b.mkv")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == (name, pix_fmt)
    assert times(tmp_path / "b.mkv") == times(given)


@pytest.mark.parametrize("fill", ["1", "90", "165"])
@pytest.mark.parametrize("frames", [1, 2, 49])
def test_a_last_segment_of_one_or_two_frames_needs_no_luck(
    tmp_path: Path, frames: int, fill: str
) -> None:
    """x265 gives such frames times to decode from memory that nobody wrote."""
    given = make(tmp_path / "a.mp4", Clip(frames=frames))
    program = (
        "from pathlib import Path\n"
        "from conftest import Repeat\n"
        "from agsr.engines.upscaler import Upscaler\n"
        "from agsr.engines.video import VideoOptions, upscale_video\n"
        "options = VideoOptions(codec='hevc', preset='ultrafast')\n"
        "upscale_video(Upscaler(backend=Repeat()), Path('a.mp4'), Path('b.mkv'), options)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        check=True,
        # MALLOC_PERTURB_ is the GNU C library's
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "MALLOC_PERTURB_": fill},
    )
    assert times(tmp_path / "b.mkv") == times(given)


def test_options_that_no_encoder_supports_are_reported_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    given, backend = make(tmp_path / "a.mp4"), Repeat()
    for target, options, message in (
        (
            "b.webm",
            VideoOptions(codec="h264"),
            r"WebM can't hold h264; use --codec av1 or vp9, or a name in \.mp4",
        ),
        (
            "b.mp4",
            VideoOptions(preset="hasty"),
            r"h264 has no such preset \(Invalid argument\); expected ultra",
        ),
        ("b.mp4", VideoOptions(crf=60), r"h264 accepts 0 to 51"),
        ("b.mov", VideoOptions(codec="prores", crf=20), r"prores has none"),
        ("b.avi", VideoOptions(), r"can't write \.avi; expected one of \.mp4"),
    ):
        with pytest.raises(VideoError, match=message):
            upscale_video(Upscaler(backend=backend), given, tmp_path / target, options)
    assert not backend.shapes
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_encoder_that_is_not_there_is_reported_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = av.codec.Codec

    def some(name: str, mode: str = "r") -> Any:
        return there("no such encoder" if name == "libx264" else name, mode)  # type: ignore[call-overload]

    monkeypatch.setattr("av.codec.Codec", some)
    with pytest.raises(VideoError, match="lacks the encoder libx264; available: hevc, av1"):
        upscale(make(tmp_path / "a.mkv", Clip(codec="ffv1")), tmp_path / "b.mp4")
