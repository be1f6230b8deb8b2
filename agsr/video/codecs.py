"""Encoders of FFmpeg by codec: quality, presets and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Codec:
    """An FFmpeg encoder and its quality options."""

    encoder: str
    crf: int | None = None
    """Visually lossless CRF; None for an encoder without CRF."""
    crf_range: tuple[int, int] = (0, 51)
    preset: str = ""
    """Name of the speed option."""
    presets: str = ""
    """Values of that option, for messages."""
    options: Mapping[str, str]
    chroma: tuple[str, ...] = ()
    """Chroma layouts, if not all three are supported."""


_X26_PRESETS = (
    "ultrafast, superfast, veryfast, faster, fast, medium, slow, slower, veryslow or placebo"
)

ENCODERS: Mapping[str, Codec] = {
    "h264": Codec(encoder="libx264", crf=16, preset="preset", presets=_X26_PRESETS, options={}),
    "hevc": Codec(
        encoder="libx265",
        crf=18,
        preset="preset",
        presets=_X26_PRESETS,
        options={"x265-params": "log-level=error"},
    ),
    "av1": Codec(
        encoder="libsvtav1",
        crf=20,
        crf_range=(1, 63),
        preset="preset",
        presets="0 (slow) to 13 (fast)",
        options={"preset": "6"},
    ),
    "vp9": Codec(
        encoder="libvpx-vp9",
        crf=18,
        crf_range=(0, 63),
        preset="cpu-used",
        presets="0 (slow) to 8 (fast)",
        options={"b": "0", "cpu-used": "2", "tile-columns": "2"},
    ),
    "prores": Codec(encoder="prores_ks", options={"vendor": "apl0"}),
    "ffv1": Codec(encoder="ffv1", options={"level": "3", "slicecrc": "1"}),
}
"""Encoders by their name in `agsr.video.formats.CODECS`."""

THREADS = {"libx265": ("x265-params", "pools"), "libsvtav1": ("svtav1-params", "lp")}
"""Thread options of encoders to which FFmpeg doesn't pass its own."""
