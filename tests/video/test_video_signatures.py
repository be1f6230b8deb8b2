"""Videos are recognised by their first bytes, and pictures are not."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from agsr.video.formats import video_ending


def _packets(size: int, sync: int) -> bytes:
    packet = bytearray(b"\xff" * size)
    packet[sync : sync + 1] = b"G"
    return bytes(packet) * 3


def test_transport_streams_have_a_sync_byte_in_each_packet() -> None:
    assert video_ending(_packets(188, 0)) == ".ts"
    assert video_ending(_packets(192, 4)) == ".m2ts"
    for at in (0, 188, 376):
        head = bytearray(_packets(188, 0))
        head[at : at + 1] = b"H"
        assert video_ending(bytes(head)) is None


@pytest.mark.parametrize("start", [b"GIF89a", b"GIF87a"])
@pytest.mark.parametrize("at", [(188,), (188, 376)])
def test_a_gif_is_a_picture_whatever_follows(start: bytes, at: tuple[int, ...]) -> None:
    head = bytearray(start + bytes(600))
    for position in at:
        head[position : position + 1] = b"G"
    assert video_ending(bytes(head)) is None


def test_a_bitmap_is_a_picture_whatever_its_size() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (71, 71, 71)).save(stream, "bmp")
    head = bytearray(stream.getvalue())
    head[4:5] = b"G"
    assert head[196] == head[388] == ord("G")
    assert video_ending(bytes(head)) is None
