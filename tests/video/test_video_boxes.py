"""Crops and XMP of video files, which FFmpeg or PyAV does not pass on."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from clips import LOSSLESS, Clip, make, packets, picture_stream, planes, upscale

from agsr.engines.video import VideoOptions
from agsr.image.metadata.xmp import for_size
from agsr.video.boxes import XMP_BOX, stored_crop, stored_xmp
from agsr.video.xmp_writer import write_xmp

_VIDEO = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
_CROP = 4, 2, 20, 16  # left, top, width, height, of 32x24
_SIZES = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:d="http://purl.org/dc/elements/1.1/" '
    f'xmlns:s="{_SIZES}" d:title="kept" s:w="32" s:h="24"/>'
).encode()


def _clap(left: int, top: int, width: int, height: int) -> bytes:
    right, down = 2 * left + width - 32, 2 * top + height - 24
    return struct.pack(">I4s4I2iii", 40, b"clap", width, 1, height, 1, right, 2, down, 2)


def _inserted(content: bytes, path: tuple[bytes, ...], box: bytes) -> bytes:
    """A file with a box at the end of another one, which lies behind all packets."""
    changed, at, stop = bytearray(content), 0, len(content)
    for kind in path:
        at = changed.index(kind, at, stop) - 4
        (size,) = struct.unpack_from(">I", changed, at)
        struct.pack_into(">I", changed, at, size + len(box))
        stop, at = at + size, at + 8
    return bytes(changed[:stop]) + box + bytes(changed[stop:])


def _cropped(path: Path, *, rotation: float | None = None) -> Path:
    """A clip of 32x24 pixels, of which a part is to be shown."""
    clip = make(path, Clip(frames=2, rotation=rotation, options={"qp": "0"}))
    content = clip.read_bytes()
    if path.suffix != ".mkv":
        content = _inserted(content, _VIDEO, _clap(*_CROP))
    else:  # in place of the colours, of the same length
        start = content.index(b"\x55\xb0\x90")
        left, top, width, height = _CROP
        values = {0x54CC: left, 0x54BB: top, 0x54DD: 32 - left - width, 0x54AA: 24 - top - height}
        crop = b"".join(struct.pack(">HBB", number, 0x81, n) for number, n in values.items())
        content = content[:start] + crop + b"\xec\x81\0" + content[start + 19 :]
    clip.write_bytes(content)
    return clip


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_a_crop_is_applied(tmp_path: Path, ending: str) -> None:
    source = _cropped(tmp_path / f"a{ending}")
    assert stored_crop(source) == (*_CROP, (32, 24))
    whole = make(tmp_path / "whole.mp4", Clip(frames=2, options={"qp": "0"}))
    for path in (source, whole):
        upscale(path, path.with_suffix(".large.mp4"), LOSSLESS)
    left, top, width, height = (4 * value for value in _CROP)
    found = planes(source.with_suffix(".large.mp4"))[0]
    expected = planes(whole.with_suffix(".large.mp4"))[0]
    assert found.shape == (height, width)
    part = expected[top : top + height, left : left + width]
    assert np.abs(found.astype(int) - part).max() <= 2
    assert stored_crop(source.with_suffix(".large.mp4")) is None


def test_a_crop_is_applied_before_the_rotation(tmp_path: Path) -> None:
    upscale(_cropped(tmp_path / "a.mp4", rotation=90), tmp_path / "b.mp4", LOSSLESS)
    stream = picture_stream(tmp_path / "b.mp4")
    assert (stream.width, stream.height) == (64, 80)


def test_a_crop_of_another_size_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _cropped(tmp_path / "a.mp4")
    content = bytearray(source.read_bytes())
    place = content.index(b"avc1", content.index(b"stsd")) + 28
    assert struct.unpack_from(">HH", content, place) == (32, 24)
    struct.pack_into(">HH", content, place, 64, 48)
    source.write_bytes(content)
    upscale(source, tmp_path / "b.mp4", LOSSLESS)
    assert picture_stream(tmp_path / "b.mp4").width == 128
    assert "a.mp4: its crop to 20x16 pixels is not applied" in caplog.text


@pytest.mark.parametrize("crop", [(0, 0, 32, 24), (20, 0, 20, 16), (0, 0, 0, 16)])
def test_a_crop_of_all_or_beyond_the_picture_is_none(
    tmp_path: Path, crop: tuple[int, int, int, int]
) -> None:
    clip = make(tmp_path / "a.mp4", Clip(frames=1))
    clip.write_bytes(_inserted(clip.read_bytes(), _VIDEO, _clap(*crop)))
    assert stored_crop(clip) is None


def _with_xmp(path: Path) -> Path:
    clip = make(path, Clip(frames=2))
    _add_xmp(clip, _PACKET)
    assert stored_xmp(clip) == _PACKET
    return clip


def _add_xmp(path: Path, packet: bytes) -> None:
    content = path.read_bytes()
    if path.suffix == ".mov":
        box = struct.pack(">I4s", 8 + len(packet), b"XMP_") + packet
        box = struct.pack(">I4s", 8 + len(box), b"udta") + box
        content = _inserted(content, (b"moov",), box)
    elif path.suffix == ".avi":
        content += b"_PMX" + struct.pack("<I", len(packet)) + packet + bytes(len(packet) % 2)
        content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    else:
        content += struct.pack(">I", 4 + len(XMP_BOX) + len(packet)) + XMP_BOX + packet
    path.write_bytes(content)


def test_places_in_xmp_of_a_cropped_video_are_removed_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    regions = "http://www.metadataworkinggroup.com/schemas/regions/"
    packet = _PACKET.replace(b' d:title="kept"', f' xmlns:r="{regions}" r:Name="face"'.encode())
    source = _cropped(tmp_path / "a.mp4")
    _add_xmp(source, packet)
    upscale(source, tmp_path / "b.mp4")
    made = stored_xmp(tmp_path / "b.mp4")
    assert made is not None
    assert b"face" not in made
    assert "the result lacks its XMP of places in the picture" in caplog.text


@pytest.mark.parametrize("target", [".mp4", ".mov"])
@pytest.mark.parametrize("ending", [".mp4", ".mov", ".avi"])
def test_xmp_stays_in_mp4_and_mov_with_the_size_of_the_result(
    tmp_path: Path, ending: str, target: str
) -> None:
    made = tmp_path / f"b{target}"
    upscale(_with_xmp(tmp_path / f"a{ending}"), made)
    expected = for_size(_PACKET, (24, 32), (96, 128))
    assert b's:w="128" s:h="96"' in expected
    with av.open(str(made), options={"export_xmp": "1"}) as file:
        assert file.metadata["xmp"].encode() == expected
        assert sum(1 for _ in file.decode(video=0)) == 2


@pytest.mark.parametrize("metadata", [{}, {"title": "Sea"}])
def test_xmp_of_mov_moves_no_packet_from_its_place(
    tmp_path: Path, metadata: dict[str, str]
) -> None:
    """The index is at the beginning, so that all offsets in it change."""
    clip, path = Clip(frames=30, audio="aac", metadata=metadata), tmp_path / "a.mov"
    with av.open(str(make(path, clip))) as file:
        remuxed = tmp_path / "fast.mov"
        options = {"movflags": "+faststart"}
        with av.open(str(remuxed), "w", container_options=options) as out:
            streams = [out.add_stream_from_template(s, opaque=True) for s in file.streams]
            out.metadata.update(metadata)
            for packet in file.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)
    before = [packets(remuxed, kind) for kind in ("video", "audio")]
    assert remuxed.read_bytes().index(b"moov") < remuxed.read_bytes().index(b"mdat")
    write_xmp(remuxed, _PACKET, "mov")
    assert [packets(remuxed, kind) for kind in ("video", "audio")] == before
    assert all(len(kind) > 20 for kind in before)
    with av.open(str(remuxed), options={"export_xmp": "1"}) as file:
        assert file.metadata["xmp"].encode() == _PACKET
        assert file.metadata.get("title") == metadata.get("title")


def test_xmp_of_mov_is_beside_the_index_where_offsets_are_at_their_limit(tmp_path: Path) -> None:
    path, box = tmp_path / "a.mov", struct.pack(">I4sIII", 20, b"stco", 0, 1, (1 << 32) - 9)
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        box = struct.pack(">I4s", 8 + len(box), kind) + box
    path.write_bytes(box)
    write_xmp(path, _PACKET, "mov")
    assert path.read_bytes().startswith(box + struct.pack(">I", 24 + len(_PACKET)) + b"uuid")
    assert stored_xmp(path) == _PACKET


@pytest.mark.parametrize("ending", [".mkv", ".webm"])
def test_xmp_is_reported_where_it_is_lost(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = VideoOptions(preset="8" if ending == ".webm" else "ultrafast")
    upscale(_with_xmp(tmp_path / "a.mp4"), tmp_path / f"b{ending}", options)
    assert "a.mp4: its XMP is lost: it is not written into " in caplog.text
    assert caplog.text.rstrip().endswith("use .mp4 or .mov")


def test_stripping_removes_xmp(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from dataclasses import replace

    upscale(_with_xmp(tmp_path / "a.mp4"), tmp_path / "b.mp4", replace(LOSSLESS, strip=True))
    assert stored_xmp(tmp_path / "b.mp4") is None
    assert "XMP" not in caplog.text
