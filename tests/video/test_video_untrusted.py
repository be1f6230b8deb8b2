"""Videos that are damaged, too large, or none."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from clips import FAST, Clip, make, times, upscale
from conftest import PHOTO, Repeat

from agsr.engines.upscaler import Upscaler
from agsr.engines.video import VideoOptions, upscale_video
from agsr.errors import VideoError
from agsr.video.boxes import MOST_PARTS
from agsr.video.truncation import _end_of_boxes


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


def test_what_is_no_video_is_rejected(tmp_path: Path) -> None:
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
            upscale(path, tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="a folder; expected a video"):
        upscale(tmp_path, tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="no such file"):
        upscale(tmp_path / "http://127.0.0.1/a.mp4", tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_odd_names_are_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "pipe:0.mp4", "%03d ü.mp4"):
        make(tmp_path / "a.mp4").rename(name)
        upscale(Path(name), Path(f"out {name}"))
        assert len(times(tmp_path / f"./out {name}")) == 12


def test_large_frames_are_rejected_undecoded(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="32x24 is 768 pixels a frame, more than 700"):
        upscale(given, tmp_path / "b.mp4", VideoOptions(max_pixels=700))


def test_a_frame_that_can_not_be_decoded_keeps_finished_segments(tmp_path: Path) -> None:
    given = make(tmp_path / "a.mp4", Clip(frames=100, options={"g": "1", "bf": "0"}))
    with av.open(str(given)) as file:
        at = [packet.pos for packet in file.demux(video=0) if packet.size][70]
    content = bytearray(given.read_bytes())
    assert at is not None
    content[at : at + 60] = bytes(60)
    given.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: frame 7\d can't be decoded"):
        upscale(given, tmp_path / "b.mp4")
    kept = tmp_path / "b.mp4.agsr-segments"
    assert [path.name for path in kept.glob("frames*")] == ["frames-00000000-00000047.nut"]
    assert not (tmp_path / "b.mp4").exists()


class _Counts(io.BytesIO):
    """A file that counts its reads."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


def test_the_boxes_of_a_crafted_file_are_not_all_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    count = MOST_PARTS + 5000
    crafted = _Counts(b"\0\0\0\x08free" * count)
    assert _end_of_boxes(crafted, 8 * count) <= 8 * count
    assert crafted.reads <= MOST_PARTS
    monkeypatch.setattr("agsr.video.boxes.MOST_PARTS", 3)
    short = _Counts(b"\0\0\0\x08free" * 2 + b"\0\0\1\0mdat")
    assert _end_of_boxes(short, 24) == 16 + 256
