"""Videos through `agsr.engines.video`: frames, times and sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import FAST, LOSSLESS, Clip, every_frame, make, picture_stream, planes, times, upscale
from conftest import Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
from agsr.image.ops.output_size import OutputSize
from agsr.system.progress import Progress
from agsr.video.properties import upright


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [
        ("a.mp4", "libx264", "b.mp4"),
        ("a.mov", "libx264", "b.mov"),
        ("a.m4v", "libx264", "b.mkv"),
        ("a.mkv", "libx264", "b.mp4"),
        ("a.webm", "libvpx-vp9", "b.webm"),
        ("a.avi", "mpeg4", "b.mkv"),
    ],
)
def test_every_frame_is_upscaled_at_its_time(
    tmp_path: Path, source: str, codec: str, target: str
) -> None:
    clip = Clip(codec=codec, frames=60)
    form = "mp4" if source.endswith("m4v") else None
    given = make(tmp_path / source, clip, form)
    options = VideoOptions(preset="8") if target.endswith("webm") else FAST
    backend = upscale(given, tmp_path / target, options)
    assert times(tmp_path / target) == times(given)
    assert len(backend.shapes) == 60
    stream = picture_stream(tmp_path / target)
    assert (stream.width, stream.height) == (128, 96)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


def test_frames_are_those_of_the_upscaler(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mkv", Clip(frames=50, options={"crf": "0"}))
    upscale(given, tmp_path / "b.mkv", LOSSLESS)
    for number in (0, 47, 48, 49):
        small, large = planes(given, number)[0], planes(tmp_path / "b.mkv", number)[0]
        difference = np.abs(large.astype(int) - small.repeat(4, 0).repeat(4, 1))
        assert difference.max() <= 2, np.bincount(difference.ravel())


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    given = make(tmp_path / "a.mp4", Clip(frames=2, rotation=degrees, options={"crf": "0"}))
    with av.open(str(given)) as file:
        assert next(file.decode(video=0)).rotation % 360 == degrees
    upscale(given, tmp_path / "b.mp4", LOSSLESS)
    with av.open(str(tmp_path / "b.mp4")) as file:
        frame = next(file.decode(video=0))
        assert frame.rotation == 0
    expected = np.rot90(planes(given)[0], degrees // 90).repeat(4, 0).repeat(4, 1)
    found = planes(tmp_path / "b.mp4")[0]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_mirrored_and_turned_pictures_become_upright() -> None:
    stored = np.arange(6).reshape(2, 3, 1)
    assert upright(stored, (-1, 0, 0, 1))[..., 0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert upright(stored, (0, 1, -1, 0))[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert upright(stored, (0, 1, 1, 0))[..., 0].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("sizing", "size"),
    [
        (OutputSize(scale=2), (64, 48)),
        (OutputSize(scale=1.47), (46, 34)),
        (OutputSize(box=(101, 101)), (100, 76)),
        (OutputSize(box=(101, 75)), (100, 74)),
        (OutputSize(scale=0.05), (2, 2)),
    ],
)
def test_sides_are_even_at_any_size(
    tmp_path: Path, sizing: OutputSize, size: tuple[int, int]
) -> None:
    upscale(
        make(tmp_path / "a.mp4", Clip(frames=1)), tmp_path / "b.mp4", replace(FAST, sizing=sizing)
    )
    stream = picture_stream(tmp_path / "b.mp4")
    assert (stream.width, stream.height) == size


def test_equal_frames_are_computed_once(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mkv", Clip(frames=60, hold=3, codec="ffv1"))
    backend = upscale(given, tmp_path / "b.mkv", LOSSLESS)
    assert len(backend.shapes) == 20
    frames = every_frame(tmp_path / "b.mkv")
    assert len(frames) == 60
    assert len(set(frames)) == len(set(every_frame(given)))


def test_interlaced_sources_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = Clip(frames=3, codec="mpeg2video", options={"flags": "+ildct+ilme"})
    upscale(make(tmp_path / "a.mkv", clip), tmp_path / "b.mkv")
    assert "interlaced" in caplog.text


def test_progress_tells_frames_and_what_is_kept(tmp_path: Path) -> None:
    reported: list[Progress] = []
    given = make(tmp_path / "a.mp4")
    upscale_video(
        Upscaler(backend=Repeat(), tile=16, halo=2),
        given,
        tmp_path / "b.mp4",
        FAST,
        reported.append,
    )
    assert [progress.done for progress in reported] == sorted(
        progress.done for progress in reported
    )
    assert reported[-1] == Progress(12, 12, 0)
    assert any(progress.done % 1 for progress in reported)
