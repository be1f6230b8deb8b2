"""Options of upscaling a video, shared by `upscale` (files) and `y4m` (streams)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agsr.engines.picture_upscaler import NetworkFacts
from agsr.engines.upscaler import Upscaler
from agsr.errors import VideoError
from agsr.image.decode import MAX_PIXELS
from agsr.image.ops.output_size import OutputSize


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Options for upscaling a video."""

    sizing: OutputSize = field(default_factory=OutputSize)
    """Size of the result; sides are rounded down to even numbers."""
    codec: str | None = None
    """One of `agsr.video.formats.CODECS`; None selects by container and depth."""
    crf: int | None = None
    """Encoder quality, smaller is better; None means visually lossless."""
    preset: str | None = None
    """The encoder's speed setting, in its own terms."""
    strip: bool = False
    """Remove titles, places, other metadata and data streams; languages are preserved."""
    max_pixels: int = MAX_PIXELS
    """Videos with larger frames are rejected."""

    def for_network(self, scale: int) -> VideoOptions:
        """Return these options for a network of that scale; see `OutputSize.for_network`."""
        return replace(self, sizing=self.sizing.for_network(scale))


def check_upscaler(upscaler: Upscaler | NetworkFacts, name: str) -> None:
    """Reject an upscaler for textures: frames are not normal maps, and alpha is not data.

    Raises:
        VideoError: The upscaler treats alpha as data.
    """
    if upscaler.separate_alpha:
        option = "--normal-map" if upscaler.normal_map else "--separate-alpha"
        raise VideoError(f"{name}: {option} is for images, and this is a video; remove the option")
