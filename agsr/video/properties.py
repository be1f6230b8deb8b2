"""What a video says about its pictures: size, colour, time, and what has to be warned of.

Made from the stream and its first frame, since neither tells everything.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agsr.errors import VideoError
from agsr.video.boxes import Crop

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.format import VideoFormat
    from av.video.stream import VideoStream

BT709, UNSPECIFIED, BT601 = 1, 2, 6
MATRICES = {
    BT709: "bt709",
    4: "fcc",
    5: "bt470",
    BT601: "smpte170m",
    7: "smpte240m",
    9: "bt2020",
}
"""Matrices between RGB and YCbCr that can be undone here, by their numbers in H.273."""

_FULL = 2  # AVCOL_RANGE_JPEG
_ONE = 1 << 16  # of a display matrix, 16.16 fixed point
UPRIGHT = (1, 0, 0, 1)
"""Orientation of pictures that are stored as they are shown."""

_CENTRED = ("mjpeg", "mpeg1video")
"""Decoders of what has its colour between the pixels; PyAV doesn't tell what a frame says."""

_LOST = {
    "A53_CC": "captions inside the pictures are lost",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata per scene is lost; the HDR10 tags stay",
    "DOVI_METADATA": "Dolby Vision metadata is lost",
    "STEREO3D": "what says how its two views are packed is lost",
    "SPHERICAL": "what says that it is a spherical video is lost",
}


_INTERLACED = (
    "interlaced: its two fields are upscaled as one picture, which shows; deinterlace first"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HdrLight:
    """HDR10's static metadata, as numbers."""

    primaries: tuple[float, ...] = ()
    """x and y of red, green, blue and white, CIE 1931."""
    luminance: tuple[float, ...] = ()
    """Darkest and brightest of the mastering display, cd/m²."""
    levels: tuple[int, ...] = ()
    """Brightest pixel, and brightest frame on average, cd/m²."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What is the same for all frames of a video."""

    width: int
    """Pixels of a stored row."""
    height: int
    codec: str = ""
    """FFmpeg's name of what the frames are compressed with."""
    pix_fmt: str
    """FFmpeg's name of the pixels' layout."""
    depth: int
    """Bits per component."""
    chroma: str
    """``"420"``, ``"422"`` or ``"444"``: what holds the colour of the source."""
    chroma_place: str
    """Where the colour of 4:2:0 lies: ``"left"`` of two pixels, or their ``"center"``."""
    rgb: bool
    """Pixels are RGB, so that there is no matrix to undo."""
    grey: bool
    matrix: int
    """Between RGB and YCbCr; where the file doesn't tell, what players take by the size."""
    full_range: bool
    primaries: int
    transfer: int
    aspect: Fraction | None
    """Width of a pixel by its height, as stored; None for unknown."""
    orientation: tuple[int, int, int, int] = UPRIGHT
    """The 2x2 part of the display matrix: ``x' = a x + c y, y' = b x + d y``."""
    crop: Crop | None = None
    """What is shown of the stored pixels, before they are turned; None for all."""
    time_base: Fraction
    """Seconds per unit of time."""
    rate: Fraction
    """Frames per second, nominally."""
    hdr: HdrLight = field(default_factory=HdrLight)
    alpha: bool = False
    """Whether frames have transparency that is decoded."""
    alpha_unread: bool = False
    """Whether they have transparency that nothing here decodes."""
    sides: Mapping[str, str] = field(default_factory=dict)
    """Side data of the first frame that encoders here don't write, and what its loss means."""
    warnings: tuple[str, ...] = ()
    """Properties of the source that spoil the result."""

    @property
    def usual_duration(self) -> int:
        """Of a frame, in units of the time base; at least 1."""
        return max(1, round(1 / self.rate / self.time_base))

    @property
    def turned(self) -> bool:
        """Whether rows and columns change places when it is shown."""
        return self.orientation[0] == 0

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width as shown."""
        width, height = self.crop[2:4] if self.crop else (self.width, self.height)
        return (width, height) if self.turned else (height, width)

    @property
    def shown_aspect(self) -> Fraction | None:
        """Width of a pixel by its height, as shown."""
        return 1 / self.aspect if self.aspect and self.turned else self.aspect


def upright(
    pixels: NDArray[Any], orientation: tuple[int, int, int, int], crop: Crop | None = None
) -> NDArray[Any]:
    """``(H, W, C)`` as stored → as shown."""
    if crop is not None:
        pixels = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    a, b, c, d = orientation
    if a == 0:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: d or 1, :: a or 1])


def has_alpha(pix_fmt: str) -> bool:
    """Return True for FFmpeg's names of the layouts with alpha that encoders here take."""
    return pix_fmt.startswith("yuva")


def facts_of(
    stream: VideoStream,
    frame: VideoFrame,
    name: str,
    centred: bool = False,
    crop: Crop | None = None,
) -> VideoFacts:
    """The facts of a video stream and its first frame.

    Args:
        stream: Of an opened file.
        frame: Decoded.
        name: For messages.
        centred: The container says that colour lies between the pixels.

    Raises:
        VideoError: Its colours are kept in a way that can't be undone here.
    """
    form, sides = frame.format, side_data(frame)
    rgb = form.is_rgb or form.has_palette
    full = frame.color_range == _FULL or form.name.startswith("yuvj") or rgb
    orientation = _orientation(sides.get("DISPLAYMATRIX"))
    warnings = []
    if orientation is None:
        warnings.append("it is to be shown at an angle, which is neither applied nor kept")
    if frame.interlaced_frame:
        warnings.append(_INTERLACED)
    if crop is not None and crop.whole != (frame.width, frame.height):
        warnings.append(f"its crop to {crop.width}x{crop.height} pixels is not applied")
        crop = None
    alpha = any(component.is_alpha for component in form.components)
    tags = {key.lower(): text for key, text in stream.metadata.items()}
    return VideoFacts(
        width=frame.width,
        height=frame.height,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=form.name,
        depth=max(component.bits for component in form.components),
        chroma=_chroma(form),
        chroma_place="center" if centred or stream.codec_context.name in _CENTRED else "left",
        rgb=rgb,
        grey=len(form.components) <= 2 and not rgb,
        matrix=BT709 if rgb else _matrix(frame, name),
        full_range=full,
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        aspect=_aspect(stream),
        orientation=orientation or UPRIGHT,
        crop=crop,
        time_base=stream.time_base or Fraction(1, 1000),
        rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        hdr=_hdr(sides),
        alpha=alpha,
        alpha_unread=not alpha and tags.get("alpha_mode") == "1",
        sides={kind: _LOST[kind] for kind in _LOST if kind in sides},
        warnings=tuple(warnings),
    )


class Watch:
    """Warns of what appears only after the first frame, once each.

    Args:
        facts: Of the first frame, which were warned of already.
        name: For messages.
    """

    def __init__(self, facts: VideoFacts, name: str) -> None:
        self._name = name
        self._known = set(facts.sides)
        if _INTERLACED in facts.warnings:
            self._known.add(_INTERLACED)

    def check(self, number: int, frame: VideoFrame) -> None:
        """Look at one more frame."""
        if frame.interlaced_frame:
            self._warn(number, _INTERLACED, _INTERLACED)
        for kind in side_data(frame):
            if kind in _LOST:
                self._warn(number, kind, _LOST[kind])

    def _warn(self, number: int, kind: str, text: str) -> None:
        if kind not in self._known:
            self._known.add(kind)
            _log.warning("%s: from frame %d on: %s", self._name, number, text)


def side_data(frame: VideoFrame) -> Mapping[str, bytes]:
    """Side data of a frame by the names of its types."""
    try:
        sides: Any = frame.side_data  # PyAV's types take its items for names
        return {side.type.name: bytes(side) for side in sides}
    except ValueError:  # a kind that PyAV has no name for
        return {}


def _chroma(form: VideoFormat) -> str:
    """The smallest of the three usual layouts that holds a format's colour, 4:1:1 apart."""
    if form.is_rgb or len(form.components) <= 2:
        return "420"  # of RGB, too: at four times the size, half of the pixels hold all of it
    narrow, low = form.chroma_width(16) < 16, form.chroma_height(16) < 16
    if not narrow:
        return "444"
    return "422" if not low and form.chroma_width(16) == 8 else "420"


def _matrix(frame: VideoFrame, name: str) -> int:
    matrix = int(frame.colorspace)
    if matrix in MATRICES:
        return matrix
    if matrix in (UNSPECIFIED, 3):
        return BT709 if frame.width >= 1280 or frame.height > 576 else BT601
    if frame.format.name.startswith("gray"):
        return BT709
    raise VideoError(
        f"{name}: colour matrix {matrix} of H.273 is not undone here; convert it to BT.709 first"
    )


def _aspect(stream: VideoStream) -> Fraction | None:
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and aspect > 0 else None


def _orientation(matrix: bytes | None) -> tuple[int, int, int, int] | None:
    """Upright where none is told; None for an angle between."""
    if matrix is None or len(matrix) != 36:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    signs = tuple((value > 0) - (value < 0) if abs(value) > 16 else 0 for value in (a, b, c, d))
    straight = all(abs(abs(value) - _ONE) <= 16 or abs(value) <= 16 for value in (a, b, c, d))
    if not straight or abs(signs[0] * signs[3] - signs[1] * signs[2]) != 1:
        return None
    return signs[0], signs[1], signs[2], signs[3]


def _hdr(sides: Mapping[str, bytes]) -> HdrLight:
    display, levels = sides.get("MASTERING_DISPLAY_METADATA"), sides.get("CONTENT_LIGHT_LEVEL")
    primaries: tuple[float, ...] = ()
    luminance: tuple[float, ...] = ()
    if display is not None and len(display) >= 88:
        numbers = struct.unpack_from("=22i", display)
        pairs = zip(numbers[0:20:2], numbers[1:20:2], strict=True)
        values = tuple(above / below if below else 0.0 for above, below in pairs)
        primaries = values[:8] if numbers[20] else ()
        luminance = values[8:] if numbers[21] else ()
    light = struct.unpack_from("=2I", levels) if levels and len(levels) >= 8 else ()
    return HdrLight(primaries, luminance, light)
