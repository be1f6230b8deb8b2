"""Split PNG files into chunks for the decoder and metadata.

Decoders differ in their checks and text limits; this module applies one rule. A chunk required for
the pixels must have a valid checksum, or the file is damaged; other damaged chunks are skipped with
a warning. Decoders receive only the required chunks (PNG, third edition).
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from zlib_ng import zlib_ng

from agsr.errors import ImageError
from agsr.image.metadata.colour import Colour, usable_chromaticities
from agsr.image.metadata.exif import HEADER
from agsr.image.metadata.exif_changes import usable_dpi
from agsr.image.metadata.iptc import from_hexadecimal, iptc_of
from agsr.image.metadata.stored import StoredMetadata, Text
from agsr.system.text import counted

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD: Final = "XML:com.adobe.xmp"
RAW_PROFILE: Final = "Raw profile type "
"""Keyword of text with IPTC or other data in hexadecimal, as ImageMagick writes it."""

_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_CUT_OFF: Final = "is cut off"
_MOST_TEXT: Final = 1 << 26
"""Limit for all text and the profile, decompressed bytes."""
_PIECE: Final = 1 << 20
"""Bytes decompressed at a time."""
_ANIMATION: Final = (b"acTL", b"fcTL", b"fdAT")
_FALSE: Final = (b"bKGD", b"hIST", b"iDOT", b"sBIT", b"sPLT", b"tIME", b"vpAg")
"""Chunks about the stored samples, the file or the background; wrong for the result."""
_METRES_PER_INCH: Final = 0.0254

_Read = Callable[[StoredMetadata, bytes, list[int]], None]

_log = logging.getLogger(__name__)


class _TooLongError(Exception):
    """Text or profile exceeds the remaining budget."""


def split_png(content: bytes, name: str) -> tuple[bytes, StoredMetadata]:
    """Return a file with only the chunks required for pixels, and the metadata of the others.

    Args:
        content: The whole file.
        name: File name for messages.

    Raises:
        ImageError: A required chunk is truncated or has a wrong checksum.
    """
    needed, others = [SIGNATURE], dict[bytes, list[bytes]]()
    for kind, data, whole, damage in _chunks(content, name):
        if kind == b"IEND":
            needed.append(_END)
        elif _is_needed(kind):
            if damage:
                raise ImageError(f"{name}: damaged: its chunk {_shown(kind)} {damage}")
            needed.append(whole)
        elif kind in _ANIMATION and not damage:
            needed.append(whole)
        elif not damage:
            others.setdefault(kind, []).append(data)
        if damage:
            _log.warning("%s: its chunk %s %s and is ignored", name, _shown(kind), damage)
            if damage == _CUT_OFF and kind != b"IEND":
                needed.append(_END)
    return b"".join(needed), _stored_metadata(others, name)


def _is_needed(kind: bytes) -> bool:
    return kind[:1].isupper() or kind == b"tRNS"


def _chunks(content: bytes, name: str) -> Iterator[tuple[bytes, bytes, bytes, str]]:
    """Yield type, data, whole chunk and damage ("" if none).

    Raises:
        ImageError: A chunk with pixels is truncated: decoders allocate its declared size.
    """
    place, view, pixels = len(SIGNATURE), memoryview(content), False
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        stop = place + 12 + length
        if stop > len(content):
            if not pixels or (_is_needed(kind) and kind != b"IEND"):
                raise ImageError(
                    f"{name}: truncated: its chunk {_shown(kind)} of {counted(length, 'byte')} "
                    "exceeds the file"
                )
            yield kind, b"", b"", _CUT_OFF
            return
        (checksum,) = struct.unpack_from(">I", content, stop - 4)
        sound = zlib_ng.crc32(view[place + 4 : stop - 4]) == checksum
        damage = "" if sound else "has a wrong checksum"
        yield kind, bytes(view[place + 8 : stop - 4]), content[place:stop], damage
        if kind == b"IEND":
            return
        pixels = pixels or kind == b"IDAT"
        place = stop
    if pixels:
        yield b"IEND", b"", b"", _CUT_OFF


def _stored_metadata(chunks: dict[bytes, list[bytes]], name: str) -> StoredMetadata:
    stored, budget = StoredMetadata(), [_MOST_TEXT]
    for kind, read in ((b"iCCP", _read_profile), (b"pHYs", _read_density)):
        for data in chunks.pop(kind, [])[:1]:
            _guarded(stored, read, data, kind, name, budget)
    for data in chunks.pop(b"eXIf", [])[:1]:
        stored.exif = HEADER + data
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        for data in chunks.pop(kind, []):
            _guarded(stored, _TEXTS[kind], data, kind, name, budget)
    stored.colour = _colour(chunks)
    for kind in (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI", *_FALSE):
        chunks.pop(kind, None)
    if chunks.pop(b"caBX", None):
        stored.lost.append("content credentials")
    stored.lost += [f"chunk {_shown(kind)}" for kind in chunks]
    return stored


def _guarded(
    stored: StoredMetadata, read: _Read, data: bytes, kind: bytes, name: str, budget: list[int]
) -> None:
    """Read a chunk; a damaged one is skipped with a warning."""
    reported = budget[0] < 0
    try:
        read(stored, data, budget)
    except (ValueError, IndexError, struct.error, zlib.error):
        _log.warning("%s: its chunk %s is damaged and is ignored", name, _shown(kind))
    except _TooLongError:
        if reported:
            return
        _log.warning(
            "%s: with its chunk %s, text and profile exceed %d MB; it and all later compressed "
            "chunks are ignored",
            *(name, _shown(kind), _MOST_TEXT >> 20),
        )


def _inflated(data: bytes, budget: list[int]) -> bytes:
    """Decompress, charging the budget even on failure.

    Raises:
        _TooLongError: The budget is exceeded; it stays negative afterwards.
        zlib.error: The data is damaged.
    """
    if budget[0] < 0:
        raise _TooLongError
    unpacker, parts = zlib.decompressobj(), list[bytes]()
    while not unpacker.eof:
        wanted = min(_PIECE, budget[0] + 1)
        try:
            parts.append(unpacker.decompress(data, wanted))
        except zlib.error:
            budget[0] = max(budget[0] - wanted, 0)
            raise
        budget[0] -= len(parts[-1])
        if budget[0] < 0:
            raise _TooLongError
        data = unpacker.unconsumed_tail
        if not parts[-1] and not data and not unpacker.eof:
            raise zlib.error("cut off")
    return b"".join(parts)


def _read_profile(stored: StoredMetadata, data: bytes, budget: list[int]) -> None:
    _, rest = _cut(data)
    stored.icc = _inflated(rest[1:], budget)


def _read_density(stored: StoredMetadata, data: bytes, _: list[int]) -> None:
    x, y, unit = struct.unpack_from(">IIB", data)
    if not x or not y:
        return
    if unit == 1:
        stored.dpi = usable_dpi(x * _METRES_PER_INCH, y * _METRES_PER_INCH)
    elif x != y:
        stored.aspect = float(x), float(y)


def _read_latin(stored: StoredMetadata, data: bytes, _: list[int]) -> None:
    keyword, text = _cut(data)
    _add(stored, Text(keyword.decode("latin-1"), text.decode("latin-1")))


def _read_packed(stored: StoredMetadata, data: bytes, budget: list[int]) -> None:
    keyword, rest = _cut(data)
    text = _inflated(rest[1:], budget).decode("latin-1")
    _add(stored, Text(keyword.decode("latin-1"), text))


def _read_unicode(stored: StoredMetadata, data: bytes, budget: list[int]) -> None:
    keyword, rest = _cut(data)
    language, inner = _cut(rest[2:])
    translated, text = _cut(inner)
    text = _inflated(text, budget) if rest[0] else text
    if keyword == XMP_KEYWORD.encode():
        stored.xmp = stored.xmp or text
        return
    parts = (keyword.decode("latin-1"), text.decode(errors="replace"), language.decode("ascii"))
    _add(stored, Text(*parts, translated.decode(errors="replace")))


_TEXTS: Final = {b"tEXt": _read_latin, b"zTXt": _read_packed, b"iTXt": _read_unicode}


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Split at the first null byte."""
    end = data.index(b"\0")
    return data[:end], data[end + 1 :]


def _add(stored: StoredMetadata, text: Text) -> None:
    keyword = text.keyword
    if keyword.startswith("Thumb::"):  # about another file's thumbnail
        return
    if not keyword.startswith(RAW_PROFILE):
        stored.text.append(text)
        return
    data, kind = from_hexadecimal(text.text), keyword.removeprefix(RAW_PROFILE).lower()
    if kind in ("iptc", "8bim"):
        stored.iptc = stored.iptc or iptc_of(data) or data
    elif kind in ("exif", "app1") and data.startswith(HEADER):
        stored.exif = stored.exif or data
    elif kind == "xmp":
        stored.xmp = stored.xmp or data
    elif kind in ("icc", "icm"):
        stored.icc = stored.icc or data
    else:
        stored.lost.append(f"text '{keyword}'")


def _colour(chunks: dict[bytes, list[bytes]]) -> Colour | None:
    """Return the colour space by these chunks; decoders may use the first that they support."""
    first = {kind: data[0] for kind, data in chunks.items()}
    codes = first.get(b"cICP", b"")
    gamma = struct.unpack(">I", first[b"gAMA"])[0] if len(first.get(b"gAMA", b"")) == 4 else 0
    points = first.get(b"cHRM", b"")
    numbers = struct.unpack(">8I", points) if len(points) == 32 else ()
    sizes = {b"mDCV": 24, b"cLLI": 8}
    levels = ((k.decode(), first[k]) for k, size in sizes.items() if len(first.get(k, b"")) == size)
    colour = Colour(
        codes=(codes[0], codes[1]) if len(codes) == 4 else None,
        narrow=len(codes) == 4 and not codes[3],
        chromaticities=usable_chromaticities(tuple(n / 100_000 for n in numbers)),
        gamma=gamma / 100_000 if 1000 <= gamma <= 10_000_000 else None,
        intent=first[b"sRGB"][0] if first.get(b"sRGB") else None,
        levels=tuple(levels),
    )
    return None if colour == Colour() else colour


def _shown(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")
