"""What a file says beside its pictures: kept, translated, removed if false, or reported as lost."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import FAST, Clip, make, upscale
from conftest import ROOT, Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
from agsr.errors import VideoError

VIDEOS = ROOT / "tests" / "videos"


def _streams(path: Path) -> list[tuple[str, int]]:
    """Type and disposition of every stream."""
    with av.open(str(path)) as file:
        return [(stream.type, int(stream.disposition)) for stream in file.streams]


def _cover(path: Path) -> bytes:
    """The attached picture of a file; empty without one."""
    with av.open(str(path)) as file:
        for packet in file.demux():
            attached = packet.stream.disposition & av.stream.Disposition.attached_pic
            if packet.size and attached:
                return bytes(packet)
    return b""


@pytest.mark.parametrize("name", ["cover.mp4", "cover-attached.mkv"])
@pytest.mark.parametrize("ending", [".mp4", ".m4v", ".mkv", ".mov"])
def test_covers_stay_or_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, ending: str
) -> None:
    source, target = VIDEOS / name, tmp_path / f"b{ending}"
    upscale(source, target)
    kept = _cover(target) == _cover(source) != b""
    assert kept == (ending != ".mov")
    assert ("(cover, mjpeg) is dropped: mov can't hold it" in caplog.text) != kept
    assert len(_streams(target)) == 2 + kept
    with av.open(str(target)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 10


@pytest.mark.parametrize("ending", [".mov", ".mp4", ".mkv"])
def test_a_timecode_track_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    upscale(VIDEOS / "timecode.mov", tmp_path / f"b{ending}")
    with av.open(str(tmp_path / f"b{ending}")) as file:
        tags = {key.lower(): text for key, text in file.streams.video[0].metadata.items()}
        assert tags["timecode"] == "01:02:03:04"
        assert len(file.streams.data) == (ending != ".mkv")
    assert not caplog.records


def test_a_container_that_rejects_a_stream_is_found_before_any_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """WebM holds neither AAC nor chapters' text nor covers; what it refuses costs no frame."""
    events: list[str] = []

    class Notes(Repeat):
        def _run(self, lr: Any) -> Any:
            if not events:
                events.append(caplog.text)
            return super()._run(lr)

    target = tmp_path / "b.webm"
    options = VideoOptions(preset="8")
    upscale_video(Upscaler(backend=Notes()), VIDEOS / "cover.mp4", target, options)
    assert "stream 1 (audio, aac, und) is dropped: webm can't hold it" in events[0]
    assert "stream 2 (cover, mjpeg) is dropped: webm can't hold it" in events[0]
    assert _streams(target) == [("video", 1)]
    with pytest.raises(VideoError, match="WebM can't hold h264"):
        upscale(VIDEOS / "cover.mp4", tmp_path / "c.webm", VideoOptions(codec="h264"))


@pytest.mark.parametrize(
    ("codec", "ending"),
    [(None, ".webm"), (None, ".mkv"), (None, ".mov"), ("ffv1", ".mkv"), ("prores", ".mkv")],
)
def test_transparency_is_upscaled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str | None, ending: str
) -> None:
    target = tmp_path / f"b{ending}"
    preset = "8" if (codec, ending) in ((None, ".webm"), (None, ".mkv")) else None
    upscale(VIDEOS / "alpha-vp9.webm", target, VideoOptions(codec=codec, preset=preset))
    expected, found = _alpha(VIDEOS / "alpha-vp9.webm"), _alpha(target)
    assert len(found) == len(expected) == 3
    for small, large in zip(expected, found, strict=True):
        assert small.min() < 0.1
        assert small.max() > 0.9
        means = large.reshape(48, 4, 64, 4).mean((1, 3))
        assert np.abs(means - small).mean() < 0.05
    assert "transparency" not in caplog.text


@pytest.mark.parametrize(("codec", "ending"), [(None, ".mp4"), ("h264", ".mkv"), ("av1", ".webm")])
def test_lost_transparency_is_reported_and_not_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str | None, ending: str
) -> None:
    target = tmp_path / f"b{ending}"
    preset = "12" if codec == "av1" else "ultrafast"
    upscale(VIDEOS / "alpha-vp9.webm", target, VideoOptions(codec=codec, preset=preset))
    assert "its transparency is lost" in caplog.text
    with av.open(str(target)) as file:
        assert "alpha_mode" not in {key.lower() for key in file.streams.video[0].metadata}


def _alpha(path: Path) -> list[Any]:
    """The alpha planes of all frames in [0, 1], by libvpx where VP9 has them."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        decoder: Any = stream.codec_context
        if decoder.name == "vp9":
            assert stream.metadata["alpha_mode"] == "1"
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = [frame for packet in file.demux(stream) for frame in decoder.decode(packet)]
        return [frame.to_ndarray(format="rgba")[..., 3] / 255 for frame in frames]


def _with_words(path: Path, form: str, words: Mapping[str, str]) -> Path:
    """A clip whose sound has metadata and is forced, and whose file has a private field."""
    plain = make(path.with_name("plain.mkv"), Clip(audio="aac", frames=8))
    with av.open(str(plain)) as given, av.open(str(path), "w", format=form) as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in given.streams]
        streams[1].disposition = av.stream.Disposition.forced | av.stream.Disposition.comment
        streams[1].metadata.update(words)
        out.metadata.update({"title": "Sea", "MY_FIELD": "x"})
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return path


def test_words_without_a_place_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = {"language": "deu", "title": "Comments", "SPEAKER": "Ada", "BPS": "12"}
    source = _with_words(tmp_path / "a.mkv", "matroska", words)
    upscale(source, tmp_path / "b.mkv")
    assert not caplog.records
    upscale(source, tmp_path / "b.mp4")
    assert "mp4 has no place for its metadata MY_FIELD" in caplog.text
    (line,) = [record.message for record in caplog.records if "stream 1" in record.message]
    assert line.endswith("mp4 has no place for its SPEAKER")
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams[1].metadata["handler_name"] == "Comments"  # MP4's name of a track
        assert file.streams[1].metadata["language"] == "deu"
        assert int(file.streams[1].disposition) & int(av.stream.Disposition.forced)


def test_tags_of_the_old_picture_are_removed(tmp_path: Path) -> None:
    said = {"title": "Sea", "width": "32", "filesize": "1", "MY_FIELD": "x"}
    source = make(tmp_path / "a.mkv", Clip(frames=5, metadata=said))
    upscale(source, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as file:
        tags = {key.lower() for key in file.metadata}
    assert {"title", "my_field"} <= tags
    assert not {"width", "filesize"} & tags


def test_what_appears_after_the_first_frame_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fields in the second half only, as recordings of broadcasts have them."""
    parts = [
        make(tmp_path / f"{name}.nut", Clip(frames=5, codec="mpeg2video", options=options))
        for name, options in (("whole", {}), ("fields", {"flags": "+ildct+ilme", "top": "1"}))
    ]
    source = tmp_path / "a.mkv"
    one, two = (av.open(str(part)) for part in parts)
    with one, two, av.open(str(source), "w") as out:
        stream = out.add_stream_from_template(one.streams.video[0], opaque=True)
        packets = [p for file in (one, two) for p in file.demux(video=0) if p.size]
        for at, packet in enumerate(packets):
            packet.pts = packet.dts = at
            packet.time_base, packet.stream = Fraction(1, 25), stream
            out.mux(packet)
    upscale(source, tmp_path / "b.mkv", FAST)
    (line,) = [record.message for record in caplog.records if "interlaced" in record.message]
    assert "from frame 5 on" in line
