"""Decoded frames ↔ RGB arrays: matrix, range and chroma position as tagged, by FFmpeg's scaler.

Nothing but the layout changes: transfer and primaries stay what they were, so HDR stays HDR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agsr.video.properties import MATRICES, VideoFacts, has_alpha, upright

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

    from agsr.video.encoder import Encoding

_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


_FORMS = {
    (False, False): "rgb24",
    (True, False): "rgb48le",
    (False, True): "rgba",
    (True, True): "rgba64le",
}
"""FFmpeg's names of arrays, by whether they have more than 8 bits, and alpha."""


class ToRgb:
    """Frames of one video → ``(H, W, 3)`` RGB as shown: uint8, or uint16 above 8 bits.

    Args:
        facts: Of the video.
        alpha: Whether alpha follows as the fourth channel.
    """

    def __init__(self, facts: VideoFacts, alpha: bool = False) -> None:
        self._facts = facts
        form = _FORMS[facts.depth > 8, alpha]
        range_ = "full" if facts.full_range else "limited"
        wishes = f"in_color_matrix={MATRICES[facts.matrix]}:in_range={range_}:out_range=full"
        wishes += f":in_chroma_loc={facts.chroma_place}"
        self._graph = _graph((facts.width, facts.height), facts.pix_fmt, wishes, form)

    def __call__(self, frame: VideoFrame) -> NDArray[Any]:
        """The pixels of a frame."""
        self._graph.push(frame)
        pixels = _pulled(self._graph).to_ndarray()
        return upright(pixels, self._facts.orientation, self._facts.crop)


class FromRgb:
    """``(H, W, 3)`` RGB, uint8 or uint16 → frames of another layout.

    A layout with alpha takes ``(H, W, 4)``.

    Args:
        width: Of the pictures.
        height: Of the pictures.
        depth: Of the source: whether pictures are uint8 (8) or uint16 (more).
        pix_fmt: FFmpeg's name of the layout.
        matrix: One of `MATRICES`.
        full_range: Whether all codes are used.
        chroma_place: Where the colour of 4:2:0 lies: ``left`` is what codecs mean by default.
        tags: Primaries and transfer, by their numbers in H.273.
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
        chroma_place: str = "left",
        tags: tuple[int, int] = (2, 2),
    ) -> None:
        self._tags = matrix, 2 if full_range else 1, *tags
        self._form = _FORMS[depth > 8, has_alpha(pix_fmt)]
        range_ = "full" if full_range else "limited"
        wishes = f"out_color_matrix={MATRICES[matrix]}:in_range=full:out_range={range_}"
        place = f":out_chroma_loc={chroma_place}" if "420" in pix_fmt else ""
        self._graph = _graph((width, height), self._form, wishes + place, pix_fmt)

    @classmethod
    def of(cls, encoding: Encoding) -> FromRgb:
        """What makes the frames that an encoding takes."""
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
        """A frame without a time."""
        from av import VideoFrame

        self._graph.push(VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=self._form))
        return self.tagged(_pulled(self._graph))

    def tagged(self, frame: VideoFrame) -> VideoFrame:
        """The frame with its colour tags: ProRes writes these, not its encoder's settings."""
        frame.colorspace, frame.color_range = self._tags[:2]
        frame.color_primaries, frame.color_trc = self._tags[2:]
        return frame


def _graph(size: tuple[int, int], form: str, wishes: str, result: str) -> Graph:
    """A filter graph that only converts."""
    from fractions import Fraction

    from av.filter import Graph

    graph = Graph()
    named: Any = form  # PyAV's types know less than it takes
    source = graph.add_buffer(
        width=size[0], height=size[1], format=named, time_base=Fraction(1, 1000)
    )
    graph.link_nodes(
        source,
        # The scaler refuses some tags, though it is not asked to heed them.
        graph.add("setparams", "color_primaries=unknown:color_trc=unknown"),
        graph.add("scale", f"{_FLAGS}:{wishes}"),
        graph.add("format", result),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pulled(graph: Graph) -> VideoFrame:
    frame: Any = graph.pull()
    return frame  # type: ignore[no-any-return]
