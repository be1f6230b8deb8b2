"""Whether a video is compressed so strongly that the traces show once they are enlarged.

The sizes of its packets (`agsr.video.packet_survey`) and its facts → bits per pixel and frame.
"""

from __future__ import annotations

from agsr.video.packet_survey import Survey
from agsr.video.properties import VideoFacts

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
"""Bits per pixel and frame, by FFmpeg's name of the codec: less leaves blocks, rings or smears in
most material. 1080p at 25 frames/s in H.264 is below at 4.1 Mbit/s, DVDs often are at 2 Mbit/s."""


def bits_per_pixel(survey: Survey, facts: VideoFacts) -> float:
    """Bits that a pixel of one frame has, on average."""
    pixels = survey.frames * facts.width * facts.height
    return 8 * survey.bytes / pixels if pixels else 0.0


def is_strongly_compressed(survey: Survey, facts: VideoFacts) -> bool:
    """Return True if a codec of `STRONG` got fewer bits than the traces need to stay invisible."""
    limit = STRONG.get(facts.codec)
    return limit is not None and 0 < bits_per_pixel(survey, facts) < limit
