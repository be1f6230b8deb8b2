"""Containers beside MP4, MKV and AVI: broadcasts, camcorders, DVDs, the older web."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import Clip, make, times, upscale

from agsr.engines.batch.plan import plan
from agsr.errors import VideoError
from agsr.image.unsupported import describe_unsupported
from agsr.video.formats import IN_FOLDERS, READABLE, UNSUPPORTED

FORMS = {
    ".ts": ("mpegts", "libx264", "aac"),
    ".m2ts": ("mpegts", "libx264", "aac"),
    ".mts": ("mpegts", "libx264", "aac"),
    ".mpg": ("mpeg", "mpeg2video", "mp2"),
    ".mpeg": ("mpeg", "mpeg1video", "mp2"),
    ".vob": ("vob", "mpeg2video", "ac3"),
    ".flv": ("flv", "flv", "aac"),
    ".f4v": ("f4v", "libx264", "aac"),
    ".wmv": ("asf", "wmv2", "mp3"),
    ".asf": ("asf", "wmv2", "mp3"),
    ".ogv": ("ogv", "libtheora", "libopus"),
    ".3gp": ("3gp", "libx264", "aac"),
    ".3g2": ("3g2", "libx264", "aac"),
}


def _has(encoder: str) -> bool:
    try:
        av.codec.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


@pytest.mark.parametrize("ending", FORMS)
def test_pictures_and_sound_stay_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    form, codec, audio = FORMS[ending]
    codec = codec if _has(codec) else "libvpx"
    header = {"m2ts": "m2ts_mode"}.get(ending[1:])
    clip = Clip(
        frames=20, codec=codec, audio=audio, header={header: "1"} if header else {},
        options={} if codec in ("libx264", "libvpx") else {"bf": "0"},
    )  # fmt: skip
    source = make(tmp_path / f"a{ending}", clip, form)
    target = tmp_path / "b.mkv"
    upscale(source, target)
    assert not [r for r in caplog.records if "is dropped" in r.message]
    given, made = times(source), times(target)
    assert len(made) == len(given) == 20
    apart = [abs((a - made[0]) - (b - given[0])) for a, b in zip(made, given, strict=True)]
    assert max(apart) <= Fraction(1, 500)
    assert made[0] < Fraction(1, 2)
    # The edit list of MP4 hides the samples that prime an AAC decoder; MKV has no such thing.
    priming = Fraction(1024, 48000) if ending in (".3gp", ".3g2", ".f4v") else 0
    assert abs(_sound_behind(target) - _sound_behind(source)) <= priming + Fraction(1, 200)


def _sound_behind(path: Path) -> Fraction:
    """Seconds from the first picture to the first decoded sound."""
    with av.open(str(path)) as file:
        first: dict[str, Fraction] = {}
        for frame in file.decode():
            kind = type(frame).__name__
            time = frame.pts * frame.time_base  # type: ignore[operator]
            first[kind] = min(first.get(kind, time), time)
        return first["AudioFrame"] - first["VideoFrame"]


def test_results_of_these_containers_are_mkv_and_programs_are_not_taken_for_videos(
    tmp_path: Path,
) -> None:
    for name in ("clip.mts", "clip.vob", "index.ts"):
        (tmp_path / name).write_bytes(b"export const a = 1;\n")
    found = plan([tmp_path], tmp_path / "out", suffix="_x4", recursive=True, videos=True)
    assert sorted(job.source.name for job in found) == ["clip.mts", "clip.vob"]
    assert {job.target.suffix for job in found} == {".mkv"}
    (named,) = plan([tmp_path / "index.ts"], None, suffix="_x4", recursive=False)
    assert named.target == tmp_path / "index_x4.mkv"
    with pytest.raises(VideoError, match="not a video, or truncated"):
        upscale(tmp_path / "index.ts", tmp_path / "out.mkv")
    assert set(FORMS) <= READABLE
    assert READABLE - {".ts"} == IN_FOLDERS


def test_other_containers_are_named_with_the_command_that_helps() -> None:
    for ending in UNSUPPORTED:
        reported = describe_unsupported(b"\0" * 300, f"a{ending}")
        assert reported is not None
        assert "ffmpeg -i in -map 0 -c copy out.mkv" in reported
    packets = (b"G" + bytes(187)) * 3
    for content in (packets, b"\0\0\1\xba" + bytes(90), b"FLV\1" + bytes(90), b"OggS" + bytes(90)):
        assert "a video" in (describe_unsupported(content, "-") or "")


class _Pipe(io.RawIOBase):
    """A sink that can't seek."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += data
        return len(data)


def test_an_avi_that_was_written_into_a_pipe_is_read(tmp_path: Path) -> None:
    source, pipe = make(tmp_path / "a.avi", Clip(codec="mpeg4", audio="mp3")), _Pipe()
    with av.open(str(source)) as given, av.open(pipe, "w", format="avi") as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in given.streams]
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    assert pipe.content[4:8] in (b"\xff\xff\xff\xff", b"\0\0\0\0")
    (tmp_path / "pipe.avi").write_bytes(pipe.content)
    upscale(tmp_path / "pipe.avi", tmp_path / "b.mkv")
    assert len(times(tmp_path / "b.mkv")) == 12
