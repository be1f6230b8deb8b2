"""Colours of videos: matrices, ranges, depth and HDR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import FAST, LOSSLESS, Clip, codes, make, picture_stream, planes, upscale
from conftest import Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import upscale_video


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("rgb", [(1, 0, 0), (0, 1, 0), (0.2, 0.4, 0.7), (1, 1, 1)])
def test_a_colour_stays_what_it_was(
    tmp_path: Path, matrix: int, full: bool, rgb: tuple[float, ...]
) -> None:
    colour, seen = codes(rgb, matrix, full=full), []

    class Looks(Repeat):
        def _run(self, lr: Any) -> Any:
            seen.append(lr[0, :, 8, 8] * 255)
            return super()._run(lr)

    tags = (matrix, 14 if matrix == 9 else matrix, matrix, 2 if full else 1)
    clip = Clip(frames=2, tags=tags, colour=colour, options={"crf": "0"})
    given = make(tmp_path / "a.mp4", clip)
    upscale_video(Upscaler(backend=Looks()), given, tmp_path / "b.mp4", LOSSLESS)
    np.testing.assert_allclose(seen[0], np.array(rgb) * 255, atol=1.6)
    result = [int(plane[40, 40]) for plane in planes(tmp_path / "b.mp4")]
    np.testing.assert_allclose(result, colour, atol=1)
    context = picture_stream(tmp_path / "b.mp4").codec_context
    found = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    assert found == tags


@pytest.mark.parametrize(("size", "matrix"), [((32, 24), 6), ((1280, 16), 1)])
def test_untagged_video_gets_the_matrix_that_players_assume(
    tmp_path: Path, size: tuple[int, int], matrix: int
) -> None:
    """Else a small clip would be BT.601 to players, and its result, being large, BT.709."""
    colour = codes((0.8, 0.3, 0.2), matrix)
    clip = Clip(
        frames=1, width=size[0], height=size[1], tags=(2, 2, 2, 0), colour=colour,
        options={"crf": "0"},
    )  # fmt: skip
    upscale(make(tmp_path / "a.mp4", clip), tmp_path / "b.mp4", LOSSLESS)
    assert picture_stream(tmp_path / "b.mp4").codec_context.colorspace == matrix
    found = [int(plane[20, 20]) for plane in planes(tmp_path / "b.mp4")]
    np.testing.assert_allclose(found, colour, atol=1)


def test_colour_edges_stay_where_they_are(tmp_path: Path) -> None:
    """Chroma that is sited left of two pixels must not move by half of one, four times enlarged."""

    class Ramp(Repeat):
        def _run(self, lr: Any) -> Any:
            seen.append(lr[0, 0, 12] - lr[0, 1, 12])
            return super()._run(lr)

    seen: list[Any] = []
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=25, width=64, height=24, options={"qp": "0"})
        video.codec_context.colorspace, video.codec_context.color_range = 6, 2
        frame = av.VideoFrame(64, 24, "yuv420p")
        for plane, part in zip(frame.planes, range(3), strict=True):
            values = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
            values[:] = 128
            if part == 2:
                values[:, :32] = 64 + 4 * np.arange(32)
        frame.pts = 0
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
    upscale_video(Upscaler(backend=Ramp()), path, tmp_path / "b.mkv", LOSSLESS)
    slope = 2 * (1.402 + 0.714136) / 255
    middle = seen[0][16:48]
    offset = float(np.mean((middle / slope + 32) - np.arange(16, 48)))
    assert abs(offset) < 0.2, offset  # 0.5 if taken for centred
    chroma = planes(tmp_path / "b.mkv")[2][40, 24:104].astype(float)
    shown = np.arange(24, 104) * 2 / 4  # luma columns of the source
    found = (chroma - 64) / 2
    # Repeat puts a pixel's four copies 1.5 behind its own place, of the large picture.
    assert abs(float(np.mean(found - shown)) + 1.5 / 4) < 0.3


def test_ten_bits_stay_ten_bits(tmp_path: Path) -> None:
    colour = codes((0.3, 0.5, 0.25), 9, depth=10)
    clip = Clip(
        frames=2, codec="libx265", pix_fmt="yuv420p10le", tags=(9, 16, 9, 1), colour=colour,
        options={"x265-params": "log-level=error", "crf": "0"},
    )  # fmt: skip
    upscale(make(tmp_path / "a.mkv", clip), tmp_path / "b.mp4", replace(FAST, crf=2))
    stream = picture_stream(tmp_path / "b.mp4")
    context = stream.codec_context
    assert (stream.name, context.pix_fmt, context.codec_tag) == ("hevc", "yuv420p10le", "hvc1")
    assert (context.color_primaries, context.color_trc, context.colorspace) == (9, 16, 9)
    found = [int(np.median(plane)) for plane in planes(tmp_path / "b.mp4")]
    np.testing.assert_allclose(found, colour, atol=2)  # of 1023


def test_hdr_light_is_reported_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    light = (
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
        ":max-cll=1000,400:log-level=error"
    )
    clip = Clip(
        frames=2, codec="libx265", pix_fmt="yuv420p10le", tags=(9, 16, 9, 1),
        options={"x265-params": light},
    )  # fmt: skip
    given = make(tmp_path / "a.mkv", clip)
    upscale(given, tmp_path / "b.mkv")
    upscale(given, tmp_path / "c.mp4")
    sides = []
    for name in ("a.mkv", "b.mkv", "c.mp4"):
        with av.open(str(tmp_path / name)) as file:
            frame: Any = next(file.decode(video=0))
            sides.append({side.type.name: bytes(side) for side in frame.side_data})
    for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
        assert sides[0][kind] == sides[1][kind] == sides[2][kind]
    assert not caplog.records
    upscale(given, tmp_path / "d.mkv", replace(FAST, codec="h264"))
    assert "light levels are lost" in caplog.text
