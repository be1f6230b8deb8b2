"""Properties of a video: size, colour, timing, and warnings about its content.

Derived from the stream and its first frame, because neither is complete.
"""

from __future__ import annotations

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
"""Supported YCbCr matrices, by H.273 code point."""

_FULL = 2  # AVCOL_RANGE_JPEG
_ONE = 1 << 16  # of a display matrix, 16.16 fixed point
UPRIGHT = (1, 0, 0, 1)
"""Orientation of pictures that are stored as shown."""

_CENTRED = ("mjpeg", "mpeg1video")
"""Decoders of formats with centred chroma; PyAV doesn't report a frame's."""

LOST_SIDE_DATA = {
    "A53_CC": "captions inside the pictures are lost",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata per scene is lost; the HDR10 tags stay",
    "DOVI_METADATA": "Dolby Vision metadata is lost",
    "STEREO3D": "its stereo packing is no longer recorded",
    "SPHERICAL": "its spherical projection is no longer recorded",
}


INTERLACED = (
    "interlaced: its two fields are upscaled as one picture, with visible combing; "
    "deinterlace first"
)


@dataclass(frozen=True)
class HdrLight:
    """HDR10 static metadata."""

    primaries: tuple[float, ...] = ()
    """x and y of red, green, blue and white, CIE 1931."""
    luminance: tuple[float, ...] = ()
    """Minimum and maximum of the mastering display, cd/m²."""
    levels: tuple[int, ...] = ()
    """Maximum content light level, and maximum frame-average light level, cd/m²."""


@dataclass(frozen=True, kw_only=True)
class VideoProperties:
    """Properties shared by all frames of a video."""

    width: int
    """Stored width, pixels."""
    height: int
    codec: str = ""
    """FFmpeg's name of the codec."""
    pix_fmt: str
    """FFmpeg's name of the pixel layout."""
    depth: int
    """Bits per component."""
    chroma: str
    """``"420"``, ``"422"`` or ``"444"``: the smallest layout that preserves the source's chroma."""
    chroma_location: str
    """Chroma location of 4:2:0: ``"left"`` or ``"center"``."""
    rgb: bool
    """Pixels are RGB, without a matrix."""
    grey: bool
    matrix: int
    """YCbCr matrix; if untagged, the one that players assume for the size."""
    full_range: bool
    primaries: int
    transfer: int
    aspect: Fraction | None
    """Stored pixel aspect ratio, width / height; None if unknown."""
    orientation: tuple[int, int, int, int] = UPRIGHT
    """The 2x2 part of the display matrix: ``x' = a x + c y, y' = b x + d y``."""
    crop: Crop | None = None
    """Visible part of the stored pixels, before rotation; None for all."""
    time_base: Fraction
    """Seconds per unit of time."""
    rate: Fraction
    """Nominal frames per second."""
    hdr: HdrLight = field(default_factory=HdrLight)
    alpha: bool = False
    """Whether frames have alpha that is decoded."""
    alpha_unread: bool = False
    """Whether frames have alpha that no installed decoder supports."""
    sides: Mapping[str, str] = field(default_factory=dict)
    """Side data of the first frame that encoders here don't write, and a message."""
    warnings: tuple[str, ...] = ()
    """Properties of the source that spoil the result."""

    @property
    def usual_duration(self) -> int:
        """Nominal frame duration in time-base units, at least 1."""
        return max(1, round(1 / self.rate / self.time_base))

    @property
    def turned(self) -> bool:
        """Whether rows and columns are swapped for display."""
        return self.orientation[0] == 0

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width as shown."""
        width, height = self.crop[2:4] if self.crop else (self.width, self.height)
        return (width, height) if self.turned else (height, width)

    @property
    def shown_aspect(self) -> Fraction | None:
        """Pixel aspect ratio as shown."""
        return 1 / self.aspect if self.aspect and self.turned else self.aspect


def upright(
    pixels: NDArray[Any], orientation: tuple[int, int, int, int], crop: Crop | None = None
) -> NDArray[Any]:
    """Crop and orient stored pixels ``(H, W, C)`` for display."""
    if crop is not None:
        pixels = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    a, b, c, d = orientation
    if a == 0:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: d or 1, :: a or 1])


def has_alpha(pix_fmt: str) -> bool:
    """Return True for the pixel formats with alpha that encoders here accept.

    >>> has_alpha("yuva420p"), has_alpha("yuv420p")
    (True, False)
    """
    return pix_fmt.startswith("yuva")


def properties_of(
    stream: VideoStream,
    frame: VideoFrame,
    name: str,
    centred: bool = False,
    crop: Crop | None = None,
) -> VideoProperties:
    """Derive the properties from a video stream and its first frame.

    Args:
        stream: Stream of an opened file.
        frame: First decoded frame.
        name: File name for messages.
        centred: The container specifies centred chroma.
        crop: Crop of the container, if any.

    Raises:
        VideoError: The colour matrix is not supported.
    """
    form, sides = frame.format, side_data(frame)
    rgb = form.is_rgb or form.has_palette
    full = frame.color_range == _FULL or form.name.startswith("yuvj") or rgb
    orientation = _orientation(sides.get("DISPLAYMATRIX"))
    warnings = []
    if orientation is None:
        warnings.append(
            "its rotation isn't a multiple of 90 degrees; it is neither applied nor preserved"
        )
    if frame.interlaced_frame:
        warnings.append(INTERLACED)
    if crop is not None and crop.whole != (frame.width, frame.height):
        warnings.append(f"its crop to {crop.width}x{crop.height} pixels is not applied")
        crop = None
    alpha = any(component.is_alpha for component in form.components)
    tags = {key.lower(): text for key, text in stream.metadata.items()}
    return VideoProperties(
        width=frame.width,
        height=frame.height,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=form.name,
        depth=max(component.bits for component in form.components),
        chroma=_chroma(form),
        chroma_location="center" if centred or stream.codec_context.name in _CENTRED else "left",
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
        sides={kind: LOST_SIDE_DATA[kind] for kind in LOST_SIDE_DATA if kind in sides},
        warnings=tuple(warnings),
    )


def side_data(frame: VideoFrame) -> Mapping[str, bytes]:
    """Return the side data of a frame by type name."""
    try:
        sides: Any = frame.side_data  # PyAV's type hints are wrong
        return {side.type.name: bytes(side) for side in sides}
    except ValueError:  # a type unknown to PyAV
        return {}


def _chroma(form: VideoFormat) -> str:
    """Return the smallest usual layout that preserves a format's chroma (4:1:1 becomes 4:2:0)."""
    if form.is_rgb or len(form.components) <= 2:
        return "420"  # RGB too: at four times the size, half the resolution preserves all of it
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
        f"{name}: colour matrix {matrix} (H.273) is not supported; convert it to BT.709 first"
    )


def _aspect(stream: VideoStream) -> Fraction | None:
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and aspect > 0 else None


def _orientation(matrix: bytes | None) -> tuple[int, int, int, int] | None:
    """Return the orientation; upright without a matrix, None for other angles."""
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
