"""The table of docs/video.md says what each container holds: checked with files made here."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import Clip, make, upscale
from conftest import ROOT

from agsr.engines.video import VideoOptions

VIDEOS = ROOT / "tests" / "videos"
COLUMNS = {"MP4": ".mp4", "MOV": ".mov", "MKV": ".mkv", "WebM": ".webm"}


def _table() -> dict[str, dict[str, str]]:
    """Cells by row and column."""
    text = (ROOT / "docs" / "video.md").read_text()
    lines = text[text.index("| | MP4 |") :].split("\n\n")[0].splitlines()
    names, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in rows[1:]}


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {key.lower(): text for key, text in metadata.items()}


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _has_codec(file: Any, name: str) -> bool:
    return name in {s.codec_context.codec.canonical_name for s in file.streams if s.codec_context}


def _name_of_track(file: Any) -> bool:
    tags = _tags(file.streams.video[0].metadata)
    return "Surf" in (tags.get("title"), tags.get("handler_name"))


HOLDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sound: AAC": (lambda file: _has_codec(file, "aac"), "(audio, aac"),
    "sound: Opus": (lambda file: _has_codec(file, "opus"), "(audio, "),
    "subtitles: SRT": (lambda file: _has_codec(file, "subrip"), "(subtitle, "),
    "attached fonts": (lambda file: bool(file.streams.attachments), "(attachment, "),
    "cover": (lambda file: any(map(_is_cover, file.streams.video)), "(cover, "),
    "chapters": (lambda file: len(file.chapters()) == 2, "chapters"),
    "title of the file": (lambda file: _tags(file.metadata).get("title") == "Sea", "title"),
    "fields with names of your choice": (
        lambda file: _tags(file.metadata).get("my_field") == "x",
        "MY_FIELD",
    ),
    "language of a track": (
        lambda file: file.streams.video[0].metadata.get("language") in ("deu", "ger"),
        "language",
    ),
    "name of a track": (_name_of_track, "title"),
    "start timecode": (
        lambda file: _tags(file.streams.video[0].metadata).get("timecode") == "01:02:03:04",
        "timecode",
    ),
    "pixel aspect, default codec": (
        lambda file: file.streams.video[0].sample_aspect_ratio == Fraction(4, 3),
        "as wide as high",
    ),
}
"""By row, what shows that a result has it, and a word of the warning if it is lost."""


def _rich(path: Path, audio: str) -> Path:
    """A clip with everything that the table names but transparency."""
    said = {"title": "Sea", "MY_FIELD": "x"}
    clip = Clip(frames=6, audio=audio, aspect=Fraction(4, 3), metadata=said, chapters=True)
    plain = make(path.with_name("plain.mkv"), clip)
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,000 --> 00:00:00,200\nHello\n\n")
    with av.open(str(VIDEOS / "cover.mp4")) as file:
        covers = [bytes(p) for p in file.demux() if p.size and _is_cover(p.stream)]
    with av.open(str(plain)) as a, av.open(str(text)) as b, av.open(str(path), "w") as out:
        out.metadata.update(said)
        out.set_chapters(a.chapters())
        streams = {
            stream: out.add_stream_from_template(stream, opaque=True)
            for file in (a, b)
            for stream in file.streams
        }
        words = {"language": "deu", "title": "Surf", "timecode": "01:02:03:04"}
        streams[a.streams.video[0]].metadata.update(words)
        out.add_attachment("font.ttf", "font/ttf", b"not a font")
        out.add_attachment("cover.jpg", "image/jpeg", covers[0])
        for file in (a, b):
            for packet in file.demux():
                if packet.size:
                    packet.stream = streams[packet.stream]
                    out.mux(packet)
    return path


@pytest.mark.parametrize("column", COLUMNS)
def test_what_the_table_says_is_kept_is_kept_and_the_rest_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    table, checked = _table(), set()
    preset = "8" if column == "WebM" else "ultrafast"
    for audio in ("aac", "libopus"):
        caplog.clear()
        source = _rich(tmp_path / "a.mkv", audio)
        target = tmp_path / f"b{COLUMNS[column]}"
        upscale(source, target, VideoOptions(preset=preset))
        with av.open(str(target)) as file:
            for row, (holds, word) in HOLDS.items():
                if row.startswith("sound") and (audio == "aac") != ("AAC" in row):
                    continue
                kept = holds(file)
                assert kept == (table[row][column] == "yes"), (row, caplog.text)
                assert kept or word in caplog.text, (row, caplog.text)
                checked.add(row)
        extra = column == "MOV" and audio == "libopus"  # the picture's one link is the timecode's
        assert ("chapters also appear as a subtitle track" in caplog.text) == extra
    assert checked == set(HOLDS)


@pytest.mark.parametrize("column", COLUMNS)
def test_what_the_table_says_about_transparency_is_true(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    target = tmp_path / f"b{COLUMNS[column]}"
    upscale(VIDEOS / "alpha-vp9.webm", target, VideoOptions())
    lost = "its transparency is lost" in caplog.text
    with av.open(str(target)) as file:
        stream = file.streams.video[0]
        frame = next(file.decode(stream))
        alpha = "a" in frame.format.name or stream.metadata.get("alpha_mode") == "1"
    table = _table()
    assert alpha == (not lost) == (table["transparency, default codec"][column] == "yes")
    assert set(table) == {*HOLDS, "transparency, default codec"}
