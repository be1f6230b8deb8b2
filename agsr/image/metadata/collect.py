"""What an opened file says about its picture, format by format, as a `Found`.

Pillow reports a part of it; the rest is read here from the bytes. For TIFF and PNG, see
`agsr.image.formats.tiff_pages` and `agsr.image.formats.png_chunks`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from PIL import Image

from agsr.image.metadata.boxes import BoxFacts, read_boxes
from agsr.image.metadata.colour import Chromaticities, Colour, usable_chromaticities
from agsr.image.metadata.exif import parse_exif
from agsr.image.metadata.exif_changes import orientation_of, usable_dpi
from agsr.image.metadata.found import COMMENT, Found, Text
from agsr.image.metadata.iptc import has_paths

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


def facts_of(image: Image.Image, content: bytes = b"") -> Found:
    """Return what is found beside the pixels.

    Args:
        image: Opened by Pillow.
        content: The whole file; empty if it is not known, as for images made in Python.
    """
    info = image.info
    icc, exif, xmp = (info.get(key) for key in ("icc_profile", "exif", "xmp"))
    texts = getattr(image, "text", None)
    if isinstance(texts, dict) and "xmp" in texts:  # by which Pillow replaces the packet
        xmp = texts.get(_XMP)
    found = Found(dpi=_dpi(info.get("dpi")))
    found.icc = icc if icc and isinstance(icc, bytes) else None  # a PNG text may bear that name
    found.exif = exif if isinstance(exif, bytes) else None
    found.xmp = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else None
    _PARTS.get(image.format or "", _of_any)(found, image, content)
    return found


def apply_boxes(found: Found, content: bytes) -> BoxFacts:
    """Add what the boxes of AVIF or HEIC say; of damaged boxes nothing."""
    try:
        facts = read_boxes(content)
    except (ValueError, IndexError, struct.error):
        return BoxFacts()
    colour = Colour(codes=facts.codes, levels=facts.levels) if facts.codes else None
    found.colour = colour if colour is not None and not colour.standard else None
    found.lost += facts.lost
    if facts.aspect is not None and min(facts.aspect) > 0 and facts.aspect[0] != facts.aspect[1]:
        found.aspect = float(facts.aspect[1]), float(facts.aspect[0])
    if facts.exif is not None:
        found.exif = facts.exif
    return facts


def decoded_text(data: bytes | str) -> str:
    """Return text of an encoding that is not named: UTF-8 if it can be."""
    if isinstance(data, str):
        return data
    try:
        return data.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return data.rstrip(b"\0").decode("latin-1")


def _of_jpeg(found: Found, image: Image.Image, content: bytes) -> None:
    info = image.info
    unit, density = info.get("jfif_unit"), info.get("jfif_density", (0, 0))
    if unit is not None or content:  # without a resolution, Pillow makes one up
        factor = {1: 1.0, 2: 2.54}.get(unit or 0)
        found.dpi = usable_dpi(density[0] * factor, density[1] * factor) if factor else None
    if unit == 0 and min(density) > 0 and density[0] != density[1]:
        found.aspect = float(density[0]), float(density[1])
    _add_comment(found, info.get("comment"))
    blocks = info.get("photoshop")
    if isinstance(blocks, dict):
        found.iptc = blocks.get(_IPTC) if isinstance(blocks.get(_IPTC), bytes) else None
        found.lost += ["clipping paths"] * has_paths(iter(blocks))
    found.lost += [label for mark, label in _BESIDE_JPEG.items() if mark in content]
    if any(mark in content for mark in _GAIN_MAP):
        found.lost.append("gain map")
    elif others := _other_pictures(image):
        found.lost.append(f"{others} other picture{'s' if others > 1 else ''}")


def _other_pictures(image: Image.Image) -> int:
    """Pictures in a multi-picture file beside the first, but for previews of it."""
    try:
        entries = getattr(image, "mpinfo", {}).get(0xB002, ())
        kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    except (AttributeError, KeyError, TypeError):
        return 0
    return sum(kind != _PRIMARY and not kind.startswith(_THUMBNAIL) for kind in kinds[1:])


def _of_gif(found: Found, image: Image.Image, content: bytes) -> None:
    _add_comment(found, image.info.get("comment"))
    if len(content) > 12 and content[12] and content[12] != 49:  # 49 is square
        found.aspect = 64.0, content[12] + 15.0


def _of_avif(found: Found, _: Image.Image, content: bytes) -> None:
    found.orientation = orientation_of(parse_exif(found.exif or b""))  # by Pillow, of the boxes
    if crop := apply_boxes(found, content).crop:
        left, top, width, height = crop
        found.lost.append(f"crop to {width}x{height} pixels from {left},{top} on")


def _of_bmp(found: Found, _: Image.Image, content: bytes) -> None:
    """Versions 4 and 5 of the header, by Microsoft's BITMAPV5HEADER."""
    size = int.from_bytes(content[14:18], "little")
    if size < 108 or len(content) < 14 + size:
        return
    kind = content[70:74]
    if kind == bytes(4):
        points = struct.unpack_from("<9i", content, 74)
        gamma = struct.unpack_from("<3I", content, 110)[1] / 65536
        usable = 0.1 < gamma < 10
        colour = Colour(chromaticities=_endpoints(points), gamma=1 / gamma if usable else None)
        found.colour = None if colour.standard else colour
    elif size >= 124 and kind == b"DEBM":
        start, length = struct.unpack_from("<II", content, 126)
        found.icc = content[14 + start : 14 + start + length] or None


def _endpoints(points: tuple[int, ...]) -> Chromaticities | None:
    """Of red, green and blue as XYZ; white is their sum."""
    colours = [points[n : n + 3] for n in (0, 3, 6)]
    white = tuple(map(sum, zip(*colours, strict=True)))
    sums = [sum(colour) for colour in (white, *colours)]
    if min(sums) <= 0:
        return None
    pairs = zip((white, *colours), sums, strict=True)
    return usable_chromaticities(tuple(v / total for c, total in pairs for v in c[:2]))


def _of_targa(found: Found, _: Image.Image, content: bytes) -> None:
    """The extension area of version 2."""
    if not content.endswith(b"TRUEVISION-XFILE.\0"):
        return
    place = int.from_bytes(content[-26:-22], "little")
    area = content[place : place + 495]
    if not place or len(area) < 495:
        return
    comment = "\n".join(filter(None, (_line(area[43 + 81 * n :][:81]) for n in range(4))))
    texts = {"Author": _line(area[2:43]), COMMENT: comment, "Software": _line(area[426:467])}
    found.text += [Text(keyword, text) for keyword, text in texts.items() if text]
    width, height, gamma, divisor = struct.unpack_from("<4H", area, 474)
    if width and height and width != height:
        found.aspect = float(height), float(width)
    if gamma and divisor and 0.1 < gamma / divisor < 10:
        colour = Colour(gamma=divisor / gamma)
        found.colour = None if colour.standard or gamma == divisor else colour


def _of_any(found: Found, image: Image.Image, _: bytes) -> None:
    """What Python programs may give with an image, in Pillow's words."""
    info = image.info
    text = getattr(image, "text", None)
    if isinstance(text, dict):
        found.text += [Text(str(k), str(v)) for k, v in text.items() if k != _XMP]
    points, gamma, intent = (info.get(key) for key in ("chromaticity", "gamma", "srgb"))
    colour = Colour(
        chromaticities=usable_chromaticities(tuple(points)) if points else None,
        gamma=gamma if isinstance(gamma, float) and gamma > 0 else None,
        intent=intent if isinstance(intent, int) else None,
    )
    found.colour = None if colour == Colour() else colour
    if isinstance(info.get("aspect"), tuple):
        found.aspect = info["aspect"]


_PARTS: Final = {
    "JPEG": _of_jpeg,
    "MPO": _of_jpeg,
    "GIF": _of_gif,
    "AVIF": _of_avif,
    "BMP": _of_bmp,
    "TGA": _of_targa,
}


def _add_comment(found: Found, comment: Any) -> None:
    if comment and isinstance(comment, bytes | str):
        found.text.append(Text(COMMENT, decoded_text(comment)))


def _line(data: bytes) -> str:
    return decoded_text(data.partition(b"\0")[0]).strip()


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return usable_dpi(x, y)
