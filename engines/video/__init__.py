"""Videos: every frame upscaled, in resumable segments, to a file or as Y4M to stdout."""

from agsr.engines.video.options import VideoOptions, check_upscaler
from agsr.engines.video.upscale import upscale_video
from agsr.system.progress import Progress

__all__ = ["Progress", "VideoOptions", "check_upscaler", "upscale_video"]
