"""Collect the metadata of an opened file, format by format, as `StoredMetadata`.

Pillow reports part of it; the rest is read from the bytes. For TIFF and PNG, see
`agsr.image.formats.tiff_pages` and `agsr.image.formats.png_chunks`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from PIL import Image

from agsr.image.metadata.boxes import BoxProperties, read_boxes
from agsr.image.metadata.colour import Chromaticities, Colour, usable_chromaticities
from agsr.image.metadata.exif import parse_exif
from agsr.image.metadata.exif_changes import orientation_of, usable_dpi
from agsr.image.metadata.iptc import has_paths
from agsr.image.metadata.stored import COMMENT, StoredMetadata, Text

_IPTC = 1028
_XMP = "XML:com.adobe.xmp"
"""Keyword of XMP among the texts of PNG."""
_GAIN_MAP: Final = (b"urn:iso:std:iso:ts:21496:-1\0", b"apple:hdrgainmap")
_BESIDE_JPEG: Final = {
    b"http://ns.adobe.com/xmp/extension/\0": "extended XMP",
    b"MotionPhoto_Data": "video",
    b"jumdc2pa": "content credentials",
}
_PRIMARY, _THUMBNAIL = "Baseline MP Primary Image", "Large Thumbnail"


def stored_metadata(image: Image.Image, content: bytes = b"") -> StoredMetadata:
    """Return the metadata stored beside the pixels.

    Args:
        image: Opened by Pillow.
        content: The whole file; empty for images that were not read from one.
    """
    info = image.info
    icc, exif, xmp = (info.get(key) for key in ("icc_profile", "exif", "xmp"))
    texts = getattr(image, "text", None)
    if isinstance(texts, dict) and "xmp" in texts:  # Pillow overwrites the packet with it
        xmp = texts.get(_XMP)
    stored = StoredMetadata(dpi=_dpi(info.get("dpi")))
    stored.icc = icc if icc and isinstance(icc, bytes) else None  # a PNG text may have that keyword
    stored.exif = exif if isinstance(exif, bytes) else None
    stored.xmp = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else None
    _READERS.get(image.format or "", _of_any)(stored, image, content)
    return stored


def apply_boxes(stored: StoredMetadata, content: bytes) -> BoxProperties:
    """Add the metadata in the boxes of AVIF or HEIC; damaged boxes are ignored."""
    try:
        properties = read_boxes(content)
    except (ValueError, IndexError, struct.error):
        return BoxProperties()
    colour = Colour(codes=properties.codes, levels=properties.levels) if properties.codes else None
    stored.colour = colour if colour is not None and not colour.standard else None
    stored.lost += properties.lost
    if (
        properties.aspect is not None
        and min(properties.aspect) > 0
        and properties.aspect[0] != properties.aspect[1]
    ):
        stored.aspect = float(properties.aspect[1]), float(properties.aspect[0])
    if properties.exif is not None:
        stored.exif = properties.exif
    return properties


def decoded_text(data: bytes | str) -> str:
    """Decode text of unspecified encoding: UTF-8 if valid, else Latin-1.

    >>> decoded_text(b"cafe")
    'cafe'
    """
    if isinstance(data, str):
        return data
    try:
        return data.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return data.rstrip(b"\0").decode("latin-1")


def _of_jpeg(stored: StoredMetadata, image: Image.Image, content: bytes) -> None:
    info = image.info
    unit, density = info.get("jfif_unit"), info.get("jfif_density", (0, 0))
    if unit is not None or content:  # Pillow invents a missing resolution
        factor = {1: 1.0, 2: 2.54}.get(unit or 0)
        stored.dpi = usable_dpi(density[0] * factor, density[1] * factor) if factor else None
    if unit == 0 and min(density) > 0 and density[0] != density[1]:
        stored.aspect = float(density[0]), float(density[1])
    _add_comment(stored, info.get("comment"))
    blocks = info.get("photoshop")
    if isinstance(blocks, dict):
        stored.iptc = blocks.get(_IPTC) if isinstance(blocks.get(_IPTC), bytes) else None
        stored.lost += ["clipping paths"] * has_paths(iter(blocks))
    stored.lost += [label for mark, label in _BESIDE_JPEG.items() if mark in content]
    if any(mark in content for mark in _GAIN_MAP):
        stored.lost.append("gain map")
    elif others := _other_pictures(image):
        stored.lost.append(f"{others} other picture{'s' if others > 1 else ''}")


def _other_pictures(image: Image.Image) -> int:
    """Count the further pictures of a multi-picture file, without previews."""
    try:
        entries = getattr(image, "mpinfo", {}).get(0xB002, ())
        kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    except (AttributeError, KeyError, TypeError):
        return 0
    return sum(kind != _PRIMARY and not kind.startswith(_THUMBNAIL) for kind in kinds[1:])


def _of_gif(stored: StoredMetadata, image: Image.Image, content: bytes) -> None:
    _add_comment(stored, image.info.get("comment"))
    if len(content) > 12 and content[12] and content[12] != 49:  # 49 is square
        stored.aspect = 64.0, content[12] + 15.0


def _of_avif(stored: StoredMetadata, _: Image.Image, content: bytes) -> None:
    # Pillow gives that of the boxes.
    stored.orientation = orientation_of(parse_exif(stored.exif or b""))
    if crop := apply_boxes(stored, content).crop:
        left, top, width, height = crop
        stored.lost.append(f"crop to {width}x{height} pixels from {left},{top} on")


def _of_bmp(stored: StoredMetadata, _: Image.Image, content: bytes) -> None:
    """Read header versions 4 and 5 (Microsoft's BITMAPV5HEADER)."""
    size = int.from_bytes(content[14:18], "little")
    if size < 108 or len(content) < 14 + size:
        return
    kind = content[70:74]
    if kind == bytes(4):
        points = struct.unpack_from("<9i", content, 74)
        gamma = struct.unpack_from("<3I", content, 110)[1] / 65536
        usable = 0.1 < gamma < 10
        colour = Colour(chromaticities=_endpoints(points), gamma=1 / gamma if usable else None)
        stored.colour = None if colour.standard else colour
    elif size >= 124 and kind == b"DEBM":
        start, length = struct.unpack_from("<II", content, 126)
        stored.icc = content[14 + start : 14 + start + length] or None


def _endpoints(points: tuple[int, ...]) -> Chromaticities | None:
    """Return the chromaticities for red, green and blue in XYZ; white is their sum."""
    colours = [points[n : n + 3] for n in (0, 3, 6)]
    white = tuple(map(sum, zip(*colours, strict=True)))
    sums = [sum(colour) for colour in (white, *colours)]
    if min(sums) <= 0:
        return None
    pairs = zip((white, *colours), sums, strict=True)
    return usable_chromaticities(tuple(v / total for c, total in pairs for v in c[:2]))


def _of_tga(stored: StoredMetadata, _: Image.Image, content: bytes) -> None:
    """Read the extension area of TGA version 2."""
    if not content.endswith(b"TRUEVISION-XFILE.\0"):
        return
    place = int.from_bytes(content[-26:-22], "little")
    area = content[place : place + 495]
    if not place or len(area) < 495:
        return
    comment = "\n".join(filter(None, (_line(area[43 + 81 * n :][:81]) for n in range(4))))
    texts = {"Author": _line(area[2:43]), COMMENT: comment, "Software": _line(area[426:467])}
    stored.text += [Text(keyword, text) for keyword, text in texts.items() if text]
    width, height, gamma, divisor = struct.unpack_from("<4H", area, 474)
    if width and height and width != height:
        stored.aspect = float(height), float(width)
    if gamma and divisor and 0.1 < gamma / divisor < 10:
        colour = Colour(gamma=divisor / gamma)
        stored.colour = None if colour.standard or gamma == divisor else colour


def _of_any(stored: StoredMetadata, image: Image.Image, _: bytes) -> None:
    """Read what Python programs put into Pillow's ``info``."""
    info = image.info
    text = getattr(image, "text", None)
    if isinstance(text, dict):
        stored.text += [Text(str(k), str(v)) for k, v in text.items() if k != _XMP]
    points, gamma, intent = (info.get(key) for key in ("chromaticity", "gamma", "srgb"))
    colour = Colour(
        chromaticities=usable_chromaticities(tuple(points)) if points else None,
        gamma=gamma if isinstance(gamma, float) and gamma > 0 else None,
        intent=intent if isinstance(intent, int) else None,
    )
    stored.colour = None if colour == Colour() else colour
    if isinstance(info.get("aspect"), tuple):
        stored.aspect = info["aspect"]


_READERS: Final = {
    "JPEG": _of_jpeg,
    "MPO": _of_jpeg,
    "GIF": _of_gif,
    "AVIF": _of_avif,
    "BMP": _of_bmp,
    "TGA": _of_tga,
}


def _add_comment(stored: StoredMetadata, comment: Any) -> None:
    if comment and isinstance(comment, bytes | str):
        stored.text.append(Text(COMMENT, decoded_text(comment)))


def _line(data: bytes) -> str:
    return decoded_text(data.partition(b"\0")[0]).strip()


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return usable_dpi(x, y)
