"""What else is in a video: sound, subtitles, covers, chapters, what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import FAST, Clip, make, packets, times, upscale

from agsr.engines.video import VideoOptions


def test_everything_else_is_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = Clip(
        frames=50, audio="aac", chapters=True, metadata={"title": "Sea", "comment": "calm"},
        aspect=Fraction(8, 9),
    )  # fmt: skip
    given = make(tmp_path / "a.mp4", clip)
    for name in ("b.mp4", "b.mkv", "b.mov"):
        target = tmp_path / name
        upscale(given, target)
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
            upscale(tmp_path / "b.mkv", target, replace(FAST, strip=strip))
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
    upscale(given, tmp_path / "b.mkv")
    assert not caplog.records
    assert packets(tmp_path / "b.mkv", "subtitle") == packets(given, "subtitle")
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert [stream.type for stream in file.streams] == [
            "video", "audio", "subtitle", "attachment",
        ]  # fmt: skip
        assert file.streams[2].metadata["language"] == "deu"
        attachment: Any = file.streams[3]
        assert (attachment.name, attachment.data) == ("font.ttf", b"not a font")
    upscale(given, tmp_path / "b.mp4")
    assert "stream 2 (subtitle, srt, deu) is dropped: mp4 can't hold it" in caplog.text
    assert "stream 3 (attachment, font.ttf) is dropped" in caplog.text
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
    upscale(given, target, VideoOptions(preset="medium"))
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
    upscale(cut, tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4") == times(cut)
    shown = [packet for packet in packets(cut, "audio") if packet[0] >= 0]
    found = dict(packets(tmp_path / "b.mp4", "audio"))
    assert all(found.get(time) == data for time, data in shown)


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
    upscale(two, tmp_path / "b.mkv")
    assert "stream 1, another video, is copied without upscaling" in caplog.text
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert [stream.width for stream in file.streams.video] == [128, 32]
