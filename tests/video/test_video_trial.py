"""The trial before the work: what it costs, and that reused packets prove the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clips import Clip, make, upscale
from conftest import ROOT

from agsr.video import sample as video_sample

VIDEOS = ROOT / "tests" / "videos"


@pytest.mark.parametrize(
    ("name", "ending", "warning"),
    [
        ("plain", ".mkv", ""),
        ("plain", ".mp4", ""),
        ("cover-attached.mkv", ".mov", "(cover, mjpeg) is dropped: mov can't hold it"),
        ("timecode.mov", ".mp4", ""),
    ],
)
def test_the_black_frame_is_encoded_once(
    tmp_path: Path,
    name: str,
    ending: str,
    warning: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also if the container refuses a stream, and plans with fewer are tried."""
    converter, made = video_sample.FromRgb, list[Any]()

    class Counted:
        @staticmethod
        def of(encoding: Any) -> Any:
            made.append(encoding)
            return converter.of(encoding)

    monkeypatch.setattr(video_sample, "FromRgb", Counted)
    source = make(tmp_path / "a.mp4", Clip(frames=3)) if name == "plain" else VIDEOS / name
    upscale(source, tmp_path / f"b{ending}")
    assert len(made) == 1
    assert warning in caplog.text
