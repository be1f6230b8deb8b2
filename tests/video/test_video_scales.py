"""Videos by networks of other scales and projects: sizes, frames, names, pipes and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import LOSSLESS, Clip, every_frame, make, picture_stream, planes
from command_line import agsr
from foreign_graphs import repeating

from agsr import Upscaler
from agsr.engines.video import upscale_video
from agsr.errors import VideoError


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_frames_have_the_scale_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("a.mkv"), Clip(frames=2, width=18, height=14, codec="ffv1"))
    repeating(Path("net.onnx"), scale=scale)
    result = agsr("infer", "a.mkv", "-w", "net.onnx", "--crf", "0", "--preset", "ultrafast")
    assert (result.exit_code, result.stdout) == (0, f"a_x{scale}.mkv\n"), result.output
    result_file = Path(f"a_x{scale}.mkv")
    stream = picture_stream(result_file)
    assert (stream.width, stream.height) == (18 * scale, 14 * scale)
    assert len(every_frame(result_file)) == 2
    for number in (0, 1):
        luma = planes(Path("a.mkv"), number)[0].astype(int)
        found = planes(result_file, number)[0].astype(int)
        assert np.abs(found - luma.repeat(scale, 0).repeat(scale, 1)).max() <= 2


def test_two_passes_and_the_limit_of_a_video(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mkv", Clip(frames=1, width=16, height=12, codec="ffv1"))
    repeating(tmp_path / "net.onnx", scale=2)
    with Upscaler(str(tmp_path / "net.onnx")) as upscaler:
        assert upscale_video(upscaler, source, tmp_path / "b.mkv", LOSSLESS) == (24, 32)
    result = agsr(
        *("infer", str(source), "-w", str(tmp_path / "net.onnx"), "--scale", "4"),
        *("-o", str(tmp_path / "c.mkv"), "--preset", "ultrafast"),
    )
    assert result.exit_code == 0, result.output
    assert picture_stream(tmp_path / "c.mkv").width == 64


@pytest.mark.parametrize(
    ("before", "after"), [((3, ""), (2, "")), ((2, "order=bgr"), (2, "order=rgb"))]
)
def test_segments_of_another_scale_or_format_are_not_reused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    before: tuple[int, str],
    after: tuple[int, str],
) -> None:
    source = make(tmp_path / "a.mkv", Clip(frames=4, width=16, height=12, codec="ffv1"))
    target, network = tmp_path / "b.mkv", tmp_path / "net.onnx"
    monkeypatch.setattr("agsr.engines.video.segment_writer.LENGTH", 2)

    def upscale() -> tuple[int, int]:
        repeating(network, scale=scale)
        with Upscaler(str(network), hints=hints) as upscaler:
            return upscale_video(upscaler, source, target, LOSSLESS)

    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise VideoError("stopped before joining")

        broken.setattr("agsr.engines.video.preparation.Preparation.complete", fail)
        scale, hints = before
        with pytest.raises(VideoError, match="stopped"):
            upscale()
    scale, hints = after
    assert upscale() == (24, 32)
    assert "of another input or other settings removed" in caplog.text
    assert len(every_frame(target)) == 4
