"""Videos: every frame upscaled, in resumable segments, to a file or as Y4M to stdout."""

from agsr.engines.video.options import Progress, VideoOptions, check_upscaler, shares
from agsr.engines.video.upscale import upscale_video

__all__ = ["Progress", "VideoOptions", "check_upscaler", "shares", "upscale_video"]
