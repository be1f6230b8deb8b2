"""Edit XMP packets in place: remove properties that become false, and scale sizes in pixels.

Everything else stays identical, including white space. `agsr.image.metadata` removes properties
when a file is read, and scales sizes when it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

_GOOGLE: Final = "http://ns.google.com/photos/"
_CAMERA: Final = _GOOGLE + "1.0/camera/"
_PANORAMA: Final = _GOOGLE + "1.0/panorama/"
_TIFF: Final = "http://ns.adobe.com/tiff/1.0/"
_EXIF: Final = "http://ns.adobe.com/exif/1.0/"
_DIMENSIONS: Final = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS: Final = "http://www.metadataworkinggroup.com/schemas/regions/"

_LOST: Final = {
    "http://ns.adobe.com/hdr-gain-map/": "gain map",
    "http://ns.apple.com/HDRGainMap/": "gain map",
    _GOOGLE + "1.0/depthmap/": "depth map",
    _GOOGLE + "dd/": "depth map",
    _GOOGLE + "1.0/audio/": "sound",
}
"""Auxiliary contents that are not in the result, by namespace prefix."""

_OF_OTHER_PARTS: Final = (
    *_LOST,
    _GOOGLE + "1.0/container/",
    _GOOGLE + "1.0/image/",
    "http://ns.apple.com/pixeldatainfo/",
)
_FALSE: Final = {
    "http://ns.adobe.com/xap/1.0/": ("Thumbnails",),
    "http://ns.adobe.com/xmp/note/": ("HasExtendedXMP",),
    _TIFF: (
        *("BitsPerSample", "Compression", "PhotometricInterpretation", "SamplesPerPixel"),
        *("PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning"),
    ),
    _EXIF: ("CompressedBitsPerPixel", "ComponentsConfiguration", "SubjectArea", "SubjectLocation"),
}
"""Properties that describe the old file, by namespace; the new file records them elsewhere."""

_SIZES: Final = {
    (_EXIF, "PixelYDimension"): 0,
    (_EXIF, "PixelXDimension"): 1,
    (_TIFF, "ImageLength"): 0,
    (_TIFF, "ImageWidth"): 1,
}
"""Properties with the height (0) or width (1) of the picture."""

_LENGTHS: Final = {
    **{(_PANORAMA, f"{part}HeightPixels"): 0 for part in ("FullPano", "CroppedAreaImage")},
    **{(_PANORAMA, f"{part}WidthPixels"): 1 for part in ("FullPano", "CroppedAreaImage")},
    **{(_PANORAMA, f"CroppedArea{side}Pixels"): n for n, side in enumerate(("Top", "Left"))},
    (_DIMENSIONS, "h"): 0,
    (_DIMENSIONS, "w"): 1,
}
"""Properties with another length in pixels along y (0) or x (1)."""

_ORIENTATION: Final = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)(\d+)")
"""Orientation in packets that can't be parsed."""
_START_TAG: Final = re.compile(rb"<[^\s/>]+(?:\s+[^\s=>]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*/?>")
_ATTRIBUTE: Final = re.compile(rb"\s+([^\s=>]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_END_TAG: Final = re.compile(rb"</[^>]*>")
_MOST_BYTES: Final = 4 << 20
"""Larger packets are not parsed."""

_Decide = Callable[[str, str, str], str | None]
"""Namespace, name and value → the new value; empty removes the property, None preserves it."""


@dataclass
class _Element:
    """An open element."""

    start: int
    tag_end: int
    outer: dict[str, str]
    """Outer namespaces of the prefixes that the element redeclares."""
    name: tuple[str, str]
    texts: list[str] = field(default_factory=list)
    simple: bool = True


@dataclass
class _Edits:
    """Edits of a packet, collected while it is parsed."""

    packet: bytes
    decide: _Decide
    found: list[tuple[int, int, bytes]] = field(default_factory=list)
    open: list[_Element] = field(default_factory=list)
    namespaces: dict[str, str] = field(default_factory=lambda: {"tiff": _TIFF, "exif": _EXIF})
    """Current namespaces by prefix. Some writers don't declare the usual ones."""

    def applied(self) -> bytes:
        """Return the packet with all edits applied; of nested ones, the outermost."""
        parts, place = [], 0
        for start, stop, new in sorted(self.found, key=lambda edit: (edit[0], -edit[1])):
            if start >= place:
                parts += [self.packet[place:start], new]
                place = stop
        return b"".join([*parts, self.packet[place:]])


def orientation(xmp: bytes) -> int:
    """Return the first orientation in a packet, 1 to 8; 1 if there is none."""
    values = list[str]()

    def decide(namespace: str, name: str, value: str) -> str | None:
        if (namespace, name) == (_TIFF, "Orientation"):
            values.append(value.strip())
        return None

    try:
        _edited(xmp, decide)
    except (expat.ExpatError, ValueError):
        match = _ORIENTATION.search(xmp)
        values = [match[2].decode()] if match else []
    first = values[0] if values else "1"
    return int(first) if first in tuple("12345678") else 1


def without_false(xmp: bytes, turned: bool) -> tuple[bytes | None, list[str]]:
    """Remove properties that are false for the decoded, upright picture without auxiliary contents.

    Args:
        xmp: Packet, UTF-8.
        turned: Whether the pixels were rotated, so that positions in the picture are wrong.

    Returns:
        The packet, or None if it is larger than 4 MB or can't be parsed where required; and the
        names of lost contents.
    """
    if len(xmp) > _MOST_BYTES:
        return None, [f"XMP, which is larger than {_MOST_BYTES >> 20} MB"]
    lost = list[str]()

    def decide(namespace: str, name: str, value: str) -> str | None:
        if label := next((_LOST[known] for known in _LOST if namespace.startswith(known)), None):
            lost.append(label)
        if namespace == _CAMERA and name.startswith(("MotionPhoto", "MicroVideo")):
            lost.extend(["video"] * (name in ("MotionPhoto", "MicroVideo") and value != "0"))
            return ""
        if turned and namespace in (_PANORAMA, _REGIONS):
            lost.append("XMP of places in the picture")
            return ""
        if (namespace, name) == (_TIFF, "Orientation"):
            return "1"
        other = namespace.startswith(_OF_OTHER_PARTS)
        return "" if other or name in _FALSE.get(namespace, ()) else None

    try:
        return _edited(xmp, decide), sorted(set(lost))
    except (expat.ExpatError, ValueError):
        xmp = _ORIENTATION.sub(rb"\g<1>1", xmp)
        doubtful = [name.encode() for name in (*_OF_OTHER_PARTS, _CAMERA)]
        unmatched = turned and xmp.count(b":Orientation") > len(_ORIENTATION.findall(xmp))
        if unmatched or any(name in xmp for name in doubtful):
            return None, ["XMP, which is damaged"]
        return xmp, []


def for_size(xmp: bytes, old: tuple[int, int] | None, new: tuple[int, int]) -> bytes:
    """Scale the pixel sizes in a packet.

    Args:
        xmp: Packet, UTF-8.
        old: Height and width of the source picture; None if unknown.
        new: Height and width of the result.
    """

    def decide(namespace: str, name: str, value: str) -> str | None:
        key = (namespace, name)
        if key in _SIZES:
            return str(new[_SIZES[key]])
        axis = _LENGTHS.get(key)
        if axis is None or old is None or not value.strip().isdecimal() or len(value) > 12:
            return None
        return str(round(int(value) * new[axis] / old[axis]))

    try:
        return _edited(xmp, decide)
    except (expat.ExpatError, ValueError):
        return xmp


def _edited(xmp: bytes, decide: _Decide) -> bytes:
    if len(xmp) > _MOST_BYTES:
        raise ValueError("the packet is too large")
    edits, parser = _Edits(xmp, decide), expat.ParserCreate("UTF-8")
    parser.buffer_text = True

    def start(name: str, attributes: dict[str, str]) -> None:
        _start(edits, parser.CurrentByteIndex, name, attributes)

    def end(_: str) -> None:
        _end(edits, parser.CurrentByteIndex)

    def text(value: str) -> None:
        if edits.open:
            edits.open[-1].texts.append(value)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _reject_doctype
    parser.Parse(xmp.rstrip(b"\0 \r\n\t"), True)
    return edits.applied()


def _reject_doctype(*_: object) -> None:
    raise ValueError("XMP doesn't allow a DOCTYPE")


def _start(edits: _Edits, place: int, name: str, attributes: dict[str, str]) -> None:
    match = _START_TAG.match(edits.packet, place)
    if match is None:
        raise ValueError("start tag not found in the packet")
    spaces = edits.namespaces
    names = (k for k in attributes if k == "xmlns" or k.startswith("xmlns:"))
    declared = {k[6:]: attributes[k] for k in names}  # the default has no prefix
    outer = {prefix: spaces.get(prefix, "") for prefix in declared}
    spaces.update(declared)
    if edits.open:
        edits.open[-1].simple = False
    edits.open.append(_Element(place, match.end(), outer, _resolved(name, spaces)))
    changed = dict[bytes, str]()
    for attribute, value in attributes.items():
        if not attribute.startswith("xmlns"):
            space, local = _resolved(attribute, spaces)
            new = edits.decide(space if ":" in attribute else "", local, value)
            if new is not None:
                changed[attribute.encode()] = new
    if changed:
        _edit_attributes(edits, match, changed)


def _edit_attributes(edits: _Edits, tag: re.Match[bytes], changed: dict[bytes, str]) -> None:
    """Edit attributes of a start tag in one pass, whatever their quoted values contain."""
    for match in _ATTRIBUTE.finditer(edits.packet, tag.start(), tag.end()):
        value = changed.get(match[1])
        if value is not None:
            new = b' %s="%s"' % (match[1], value.encode()) if value else b""
            edits.found.append((match.start(), match.end(), new))


def _end(edits: _Edits, place: int) -> None:
    element = edits.open.pop()
    edits.namespaces.update(element.outer)
    closing = _END_TAG.match(edits.packet, place)
    stop = closing.end() if closing and place >= element.tag_end else element.tag_end
    new = edits.decide(*element.name, "".join(element.texts))
    if new is None or (new and not element.simple):
        return
    if not new:
        edits.found.append((element.start, stop, b""))
    elif stop > element.tag_end:
        edits.found.append((element.tag_end, place, new.encode()))


def _resolved(name: str, spaces: dict[str, str]) -> tuple[str, str]:
    prefix, _, local = name.rpartition(":")
    return spaces.get(prefix, ""), local
