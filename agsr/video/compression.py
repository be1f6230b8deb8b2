"""Detect videos whose compression artifacts become visible when upscaled.

Packet sizes (`agsr.video.packet_survey`) and properties → bits per pixel and frame.
"""

from __future__ import annotations

from agsr.video.packet_survey import Survey
from agsr.video.properties import VideoProperties

STRONG = {
    "mpeg1video": 0.25,
    "mpeg2video": 0.2,
    "mjpeg": 1.0,
    "flv1": 0.15,
    "h263": 0.15,
    "wmv1": 0.15,
    "wmv2": 0.15,
    "wmv3": 0.12,
    "vc1": 0.1,
    "msmpeg4v3": 0.15,
    "mpeg4": 0.15,
    "theora": 0.15,
    "vp8": 0.1,
    "h264": 0.08,
    "hevc": 0.05,
    "vp9": 0.05,
    "av1": 0.04,
}
"""Thresholds in bits per pixel and frame, by FFmpeg's codec name. Below them, most material shows
blocks, ringing or smearing. For 1080p H.264 at 25 frames/s this is 4.1 Mbit/s; DVDs are often below
it, at 2 Mbit/s."""


def bits_per_pixel(survey: Survey, properties: VideoProperties) -> float:
    """Return the mean number of bits per pixel and frame."""
    pixels = survey.frames * properties.width * properties.height
    return 8 * survey.bytes / pixels if pixels else 0.0


def is_strongly_compressed(survey: Survey, properties: VideoProperties) -> bool:
    """Return True if the bits per pixel are below the codec's threshold in `STRONG`."""
    limit = STRONG.get(properties.codec)
    return limit is not None and 0 < bits_per_pixel(survey, properties) < limit
