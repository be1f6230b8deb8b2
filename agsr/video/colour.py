"""Convert between decoded frames and RGB arrays with FFmpeg's scaler.

Matrix, range and chroma location are as tagged. Transfer and primaries don't change, so HDR stays
HDR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agsr.video.properties import MATRICES, VideoProperties, has_alpha, upright

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

    from agsr.video.encoder import Encoding

_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


_PIXEL_FORMATS = {
    (False, False): "rgb24",
    (True, False): "rgb48le",
    (False, True): "rgba",
    (True, True): "rgba64le",
}
"""FFmpeg's pixel formats of arrays, by (more than 8 bits, alpha)."""


class ToRgb:
    """Converts frames of one video to RGB ``(H, W, 3)`` as shown: uint8, or uint16 above 8 bits.

    Args:
        properties: Properties of the video.
        alpha: Whether to add alpha as the fourth channel.
    """

    def __init__(self, properties: VideoProperties, alpha: bool = False) -> None:
        self._properties = properties
        form = _PIXEL_FORMATS[properties.depth > 8, alpha]
        range_ = "full" if properties.full_range else "limited"
        scaling = f"in_color_matrix={MATRICES[properties.matrix]}:in_range={range_}:out_range=full"
        scaling += f":in_chroma_loc={properties.chroma_location}"
        self._graph = _graph(
            (properties.width, properties.height), properties.pix_fmt, scaling, form
        )

    def __call__(self, frame: VideoFrame) -> NDArray[Any]:
        """Return the pixels of a frame."""
        self._graph.push(frame)
        pixels = _pulled(self._graph).to_ndarray()
        return upright(pixels, self._properties.orientation, self._properties.crop)


class FromRgb:
    """Converts RGB ``(H, W, 3)``, uint8 or uint16, to frames of another layout.

    A layout with alpha requires ``(H, W, 4)``.

    Args:
        width: Width of the pictures.
        height: Height of the pictures.
        depth: Bit depth of the source: 8 for uint8 pictures, more for uint16.
        pix_fmt: FFmpeg's name of the layout.
        matrix: One of `MATRICES`.
        full_range: Whether codes use the full range.
        chroma_location: Chroma location of 4:2:0; ``left`` is the default of codecs.
        tags: H.273 code points of primaries and transfer.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        depth: int,
        pix_fmt: str,
        matrix: int,
        full_range: bool,
        chroma_location: str = "left",
        tags: tuple[int, int] = (2, 2),
    ) -> None:
        self._tags = matrix, 2 if full_range else 1, *tags
        self._form = _PIXEL_FORMATS[depth > 8, has_alpha(pix_fmt)]
        range_ = "full" if full_range else "limited"
        scaling = f"out_color_matrix={MATRICES[matrix]}:in_range=full:out_range={range_}"
        place = f":out_chroma_loc={chroma_location}" if "420" in pix_fmt else ""
        self._graph = _graph((width, height), self._form, scaling + place, pix_fmt)

    @classmethod
    def of(cls, encoding: Encoding) -> FromRgb:
        """Return the converter for an encoding."""
        return cls(
            width=encoding.width,
            height=encoding.height,
            depth=encoding.depth,
            pix_fmt=encoding.pix_fmt,
            matrix=encoding.matrix,
            full_range=encoding.full_range,
            tags=(encoding.primaries, encoding.transfer),
        )

    def __call__(self, pixels: NDArray[Any]) -> VideoFrame:
        """Convert pixels to a frame without a time."""
        from av import VideoFrame

        self._graph.push(VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=self._form))
        return self.tagged(_pulled(self._graph))

    def tagged(self, frame: VideoFrame) -> VideoFrame:
        """Set a frame's colour tags, which ProRes writes instead of its encoder's settings."""
        frame.colorspace, frame.color_range = self._tags[:2]
        frame.color_primaries, frame.color_trc = self._tags[2:]
        return frame


def _graph(size: tuple[int, int], form: str, scaling: str, result: str) -> Graph:
    """Build a filter graph that only converts."""
    from fractions import Fraction

    from av.filter import Graph

    graph = Graph()
    named: Any = form  # PyAV's type hints are too narrow
    source = graph.add_buffer(
        width=size[0], height=size[1], format=named, time_base=Fraction(1, 1000)
    )
    graph.link_nodes(
        source,
        # The scaler rejects some tags, although it doesn't use them.
        graph.add("setparams", "color_primaries=unknown:color_trc=unknown"),
        graph.add("scale", f"{_FLAGS}:{scaling}"),
        graph.add("format", result),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pulled(graph: Graph) -> VideoFrame:
    frame: Any = graph.pull()
    return frame  # type: ignore[no-any-return]
