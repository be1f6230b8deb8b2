"""Video files through `agsr.engines.video`: what is kept, colour, time, and untrusted files."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, codes, every_frame, make, packets, planes, times
from conftest import PHOTO, Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import Progress, VideoOptions, upscale_video
from agsr.errors import VideoError
from agsr.sizing import Sizing
from agsr.video_facts import upright

FAST = VideoOptions(preset="ultrafast")
LOSSLESS = VideoOptions(preset="ultrafast", crf=0)


def _upscale(source: Path, target: Path, options: VideoOptions = FAST) -> Repeat:
    backend = Repeat()
    upscale_video(Upscaler(backend=backend), source, target, options)
    return backend


def _video(path: Path) -> Any:
    with av.open(str(path)) as file:
        return file.streams.video[0]


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
    backend = _upscale(given, tmp_path / target, options)
    assert times(tmp_path / target) == times(given)
    assert len(backend.shapes) == 60
    stream = _video(tmp_path / target)
    assert (stream.width, stream.height) == (128, 96)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


def test_frames_are_those_of_the_upscaler(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mkv", Clip(frames=50, options={"crf": "0"}))
    _upscale(given, tmp_path / "b.mkv", LOSSLESS)
    for number in (0, 47, 48, 49):
        small, large = planes(given, number)[0], planes(tmp_path / "b.mkv", number)[0]
        difference = np.abs(large.astype(int) - small.repeat(4, 0).repeat(4, 1))
        assert difference.max() <= 2, np.bincount(difference.ravel())


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
    context = _video(tmp_path / "b.mp4").codec_context
    found = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
    assert found == tags


@pytest.mark.parametrize(("size", "matrix"), [((32, 24), 6), ((1280, 16), 1)])
def test_untagged_video_is_told_the_matrix_that_players_took(
    tmp_path: Path, size: tuple[int, int], matrix: int
) -> None:
    """Else a small clip would be BT.601 to players, and its result, being large, BT.709."""
    colour = codes((0.8, 0.3, 0.2), matrix)
    clip = Clip(
        frames=1, width=size[0], height=size[1], tags=(2, 2, 2, 0), colour=colour,
        options={"crf": "0"},
    )  # fmt: skip
    _upscale(make(tmp_path / "a.mp4", clip), tmp_path / "b.mp4", LOSSLESS)
    assert _video(tmp_path / "b.mp4").codec_context.colorspace == matrix
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
    _upscale(make(tmp_path / "a.mkv", clip), tmp_path / "b.mp4", replace(FAST, crf=2))
    stream = _video(tmp_path / "b.mp4")
    context = stream.codec_context
    assert (stream.name, context.pix_fmt, context.codec_tag) == ("hevc", "yuv420p10le", "hvc1")
    assert (context.color_primaries, context.color_trc, context.colorspace) == (9, 16, 9)
    found = [int(np.median(plane)) for plane in planes(tmp_path / "b.mp4")]
    np.testing.assert_allclose(found, colour, atol=2)  # of 1023


def test_hdr_light_is_told_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    light = (
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
        ":max-cll=1000,400:log-level=error"
    )
    clip = Clip(
        frames=2, codec="libx265", pix_fmt="yuv420p10le", tags=(9, 16, 9, 1),
        options={"x265-params": light},
    )  # fmt: skip
    given = make(tmp_path / "a.mkv", clip)
    _upscale(given, tmp_path / "b.mkv")
    _upscale(given, tmp_path / "c.mp4")
    sides = []
    for name in ("a.mkv", "b.mkv", "c.mp4"):
        with av.open(str(tmp_path / name)) as file:
            frame: Any = next(file.decode(video=0))
            sides.append({side.type.name: bytes(side) for side in frame.side_data})
    for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
        assert sides[0][kind] == sides[1][kind] == sides[2][kind]
    assert not caplog.records
    _upscale(given, tmp_path / "d.mkv", replace(FAST, codec="h264"))
    assert "light levels are lost" in caplog.text


def test_everything_else_is_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = Clip(
        frames=50, audio="aac", chapters=True, metadata={"title": "Sea", "comment": "calm"},
        aspect=Fraction(8, 9),
    )  # fmt: skip
    given = make(tmp_path / "a.mp4", clip)
    for name in ("b.mp4", "b.mkv", "b.mov"):
        target = tmp_path / name
        _upscale(given, target)
        found, expected = packets(target, "audio"), packets(given, "audio")
        assert [data for _, data in found] == [data for _, data in expected]
        moved = times(target)[0] - times(given)[0]  # MKV has no times before 0
        apart = max(abs(a[0] - b[0] - moved) for a, b in zip(found, expected, strict=True))
        assert apart <= Fraction(1, 1000)
        assert not caplog.records
        with av.open(str(target)) as file:
            titles = [chapter["metadata"]["title"] for chapter in file.chapters()]
            assert titles == ["Part 0", "Part 1"]
            assert {key.lower(): text for key, text in file.metadata.items()}["title"] == "Sea"
            assert file.streams.video[0].sample_aspect_ratio == Fraction(8, 9)
            assert file.streams.video[0].average_rate == 25


def test_stripped_videos_tell_no_title_and_no_place_but_languages(tmp_path: Path) -> None:
    said = {"title": "Sea", "location": "+52.5+013.4/", "language": "deu"}
    given = make(tmp_path / "a.mkv", Clip(metadata=said, audio="aac"))
    with av.open(str(given)) as file, av.open(str(tmp_path / "b.mkv"), "w") as out:
        for stream in file.streams:
            copy: Any = out.add_stream_from_template(stream)
            copy.metadata.update({"title": "Surf", "language": "deu"})
        out.metadata.update(said)
        for packet in file.demux():
            if packet.size:
                packet.stream = out.streams[packet.stream_index]
                out.mux(packet)
    for strip in (False, True):
        for name in ("c.mkv", "c.mp4"):
            target = tmp_path / name
            _upscale(tmp_path / "b.mkv", target, replace(FAST, strip=strip))
            content = target.read_bytes()
            assert (b"Sea" in content) != strip
            assert (b"+52.5" in content) != strip or name == "c.mp4"
            with av.open(str(target)) as file:
                assert [stream.metadata["language"] for stream in file.streams] == ["deu"] * 2
                assert not strip or not any("title" in stream.metadata for stream in file.streams)


def _with_subtitles(path: Path) -> Path:
    """A clip of several streams, made by joining a text of subtitles to a clip."""
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,200 --> 00:00:01,000\nHello\n\n")
    clip = make(path.with_name("plain.mkv"), Clip(audio="aac", frames=30))
    with av.open(str(clip)) as a, av.open(str(text)) as b, av.open(str(path), "w") as out:
        streams = {s: out.add_stream_from_template(s, opaque=True) for s in a.streams}
        subtitle = out.add_stream_from_template(b.streams[0])
        subtitle.metadata["language"] = "deu"
        out.add_attachment("font.ttf", "font/ttf", b"not a font")
        for packet in b.demux():
            if packet.size:
                packet.stream = subtitle
                out.mux(packet)
        for packet in a.demux():
            if packet.size:
                packet.stream = streams[packet.stream]
                out.mux(packet)
    return path


def test_subtitles_and_attachments_are_copied_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = _with_subtitles(tmp_path / "a.mkv")
    _upscale(given, tmp_path / "b.mkv")
    assert not caplog.records
    assert packets(tmp_path / "b.mkv", "subtitle") == packets(given, "subtitle")
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert [stream.type for stream in file.streams] == [
            "video", "audio", "subtitle", "attachment",
        ]  # fmt: skip
        assert file.streams[2].metadata["language"] == "deu"
        attachment: Any = file.streams[3]
        assert (attachment.name, attachment.data) == ("font.ttf", b"not a font")
    _upscale(given, tmp_path / "b.mp4")
    assert "stream 2 (subtitle, srt, deu) is left out: mp4 can't hold it" in caplog.text
    assert "stream 3 (attachment, font.ttf) is left out" in caplog.text
    assert packets(tmp_path / "b.mp4", "audio")


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("start", [0, 45_000])
def test_sound_stays_with_pictures_whatever_their_times(
    tmp_path: Path, ending: str, start: int
) -> None:
    """Variable rate, B-frames, pictures that begin later than the sound."""
    steps = [3000, 1500, 6000, 3003, 9000, 100] * 12
    shown = [start + sum(steps[:number]) for number in range(70)]
    clip = Clip(
        frames=70, times=shown, time_base=Fraction(1, 90_000), audio="aac",
        options={"bf": "3"},
    )  # fmt: skip
    given, target = make(tmp_path / f"a{ending}", clip), tmp_path / f"b{ending}"
    _upscale(given, target, VideoOptions(preset="medium"))
    assert times(target) == times(given)
    if ending == ".mp4":
        assert times(target) == [Fraction(time, 90_000) for time in shown]
    for (found, data), (expected, same) in zip(
        packets(target, "audio"), packets(given, "audio"), strict=True
    ):
        assert data == same
        assert abs(found - expected) <= Fraction(1, 1000)


def test_an_edit_list_keeps_its_effect(tmp_path: Path) -> None:
    """A clip that was cut without encoding: the first frames are there, but not shown."""
    whole = make(tmp_path / "whole.mp4", Clip(frames=40, audio="aac", options={"bf": "2"}))
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as file, av.open(str(cut), "w") as out:
        streams = {s: out.add_stream_from_template(s, opaque=True) for s in file.streams}
        for packet in file.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                back = round(Fraction(4, 10) / packet.time_base)
                packet.pts, packet.dts = packet.pts - back, packet.dts - back
                packet.stream = streams[packet.stream]
                out.mux(packet)
    assert len(times(cut)) == 30
    _upscale(cut, tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4") == times(cut)
    shown = [packet for packet in packets(cut, "audio") if packet[0] >= 0]
    found = dict(packets(tmp_path / "b.mp4", "audio"))
    assert all(found.get(time) == data for time, data in shown)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    given = make(tmp_path / "a.mp4", Clip(frames=2, rotation=degrees, options={"crf": "0"}))
    with av.open(str(given)) as file:
        assert next(file.decode(video=0)).rotation % 360 == degrees
    _upscale(given, tmp_path / "b.mp4", LOSSLESS)
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
        (Sizing(scale=2), (64, 48)),
        (Sizing(scale=1.47), (46, 34)),
        (Sizing(box=(101, 101)), (100, 76)),
        (Sizing(box=(101, 75)), (100, 74)),
        (Sizing(scale=0.05), (2, 2)),
    ],
)
def test_sides_are_even_at_any_size(tmp_path: Path, sizing: Sizing, size: tuple[int, int]) -> None:
    _upscale(
        make(tmp_path / "a.mp4", Clip(frames=1)), tmp_path / "b.mp4", replace(FAST, sizing=sizing)
    )
    stream = _video(tmp_path / "b.mp4")
    assert (stream.width, stream.height) == size


def test_equal_frames_are_computed_once(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mkv", Clip(frames=60, hold=3, codec="ffv1"))
    backend = _upscale(given, tmp_path / "b.mkv", LOSSLESS)
    assert len(backend.shapes) == 20
    frames = every_frame(tmp_path / "b.mkv")
    assert len(frames) == 60
    assert len(set(frames)) == len(set(every_frame(given)))


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
    _upscale(given, tmp_path / "b.mkv", VideoOptions(codec=codec, preset=preset))
    stream = _video(tmp_path / "b.mkv")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == (name, pix_fmt)
    assert times(tmp_path / "b.mkv") == times(given)


def test_wishes_that_no_encoder_fulfils_are_told_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    given, backend = make(tmp_path / "a.mp4"), Repeat()
    for target, options, message in (
        ("b.webm", VideoOptions(codec="h264"), r"encoders here: h264, hevc"),
        ("b.mp4", VideoOptions(preset="hasty"), r"check --codec and --preset"),
        ("b.mp4", VideoOptions(crf=60), r"h264 takes 0 to 51"),
        ("b.mov", VideoOptions(codec="prores", crf=20), r"prores has none"),
        ("b.avi", VideoOptions(), r"can't write \.avi; expected one of \.mp4"),
    ):
        with pytest.raises(VideoError, match=message):
            upscale_video(Upscaler(backend=backend), given, tmp_path / target, options)
    assert not backend.shapes
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_encoder_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = av.codec.Codec

    def some(name: str, mode: str = "r") -> Any:
        return there("no such encoder" if name == "libx264" else name, mode)  # type: ignore[call-overload]

    monkeypatch.setattr("av.codec.Codec", some)
    with pytest.raises(VideoError, match="lacks the encoder libx264; there are: hevc, av1"):
        _upscale(make(tmp_path / "a.mkv", Clip(codec="ffv1")), tmp_path / "b.mp4")


@pytest.mark.parametrize("ending", [".mp4", "-fast.mp4", ".mkv", ".webm", ".avi", ".y4m"])
def test_truncated_files_give_one_line_and_no_result(tmp_path: Path, ending: str) -> None:
    codecs = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".y4m": "wrapped_avframe"}
    codec = codecs.get(ending, "libx264")
    header = {"movflags": "faststart"} if "fast" in ending else {}
    content = make(tmp_path / f"a{ending}", Clip(codec=codec, header=header)).read_bytes()
    cut, backend = tmp_path / f"cut{ending}", Repeat()
    for share in (0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(VideoError) as caught:
            upscale_video(Upscaler(backend=backend), cut, tmp_path / "out.mkv", FAST)
        assert str(caught.value).startswith(str(cut))
        assert "\n" not in str(caught.value)
    assert not backend.shapes
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", f"cut{ending}"]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    script = tmp_path / "concat.mkv"
    script.write_text("ffconcat version 1.0\nfile a.mp4\n")
    picture = tmp_path / "photo.mp4"
    picture.write_bytes(PHOTO.read_bytes())
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    for path in (playlist, script, picture, noise):
        with pytest.raises(VideoError, match="not a video, or truncated"):
            _upscale(path, tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="a folder; expected a video"):
        _upscale(tmp_path, tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="no such file"):
        _upscale(tmp_path / "http://127.0.0.1/a.mp4", tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_odd_names_are_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "pipe:0.mp4", "%03d ü.mp4"):
        make(tmp_path / "a.mp4").rename(name)
        _upscale(Path(name), Path(f"out {name}"))
        assert len(times(tmp_path / f"./out {name}")) == 12


def test_large_frames_are_refused_undecoded(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="32x24 is 768 pixels a frame, more than 700"):
        _upscale(given, tmp_path / "b.mp4", VideoOptions(max_pixels=700))


def test_pictures_of_covers_are_copied_and_other_videos_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = make(tmp_path / "a.mkv", Clip(frames=5))
    two = tmp_path / "two.mkv"
    with av.open(str(given)) as a, av.open(str(given)) as b, av.open(str(two), "w") as out:
        streams = [out.add_stream_from_template(f.streams.video[0], opaque=True) for f in (a, b)]
        for file, stream in zip((a, b), streams, strict=True):
            for packet in file.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    _upscale(two, tmp_path / "b.mkv")
    assert "stream 1, another video, is copied at its size" in caplog.text
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert [stream.width for stream in file.streams.video] == [128, 32]


def test_interlaced_sources_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = Clip(frames=3, codec="mpeg2video", options={"flags": "+ildct+ilme"})
    _upscale(make(tmp_path / "a.mkv", clip), tmp_path / "b.mkv")
    assert "interlaced" in caplog.text


def test_a_frame_that_can_not_be_decoded_keeps_finished_segments(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mp4", Clip(frames=100, options={"g": "1", "bf": "0"}))
    with av.open(str(given)) as file:
        at = [packet.pos for packet in file.demux(video=0) if packet.size][70]
    content = bytearray(given.read_bytes())
    assert at is not None
    content[at : at + 60] = bytes(60)
    given.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: frame 7\d can't be decoded"):
        _upscale(given, tmp_path / "b.mp4")
    kept = tmp_path / "b.mp4.agsr-segments"
    assert [path.name for path in kept.glob("frames*")] == ["frames-00000000-00000047.nut"]
    assert not (tmp_path / "b.mp4").exists()


def test_progress_tells_frames_and_what_is_kept(tmp_path: Path) -> None:
    told: list[Progress] = []
    given = make(tmp_path / "a.mp4")
    upscale_video(
        Upscaler(backend=Repeat(), tile=16, halo=2), given, tmp_path / "b.mp4", FAST, told.append
    )
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert told[-1] == Progress(12, 12, 0)
    assert any(progress.done % 1 for progress in told)


@pytest.fixture(autouse=True)
def _warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
