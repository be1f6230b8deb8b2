"""XMP of a video file → what of it is still true of the upscaled one, in a `Plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agsr.image.metadata import listed
from agsr.image.metadata import xmp as packets
from agsr.video.boxes import stored_xmp
from agsr.video.encoder import Encoding
from agsr.video.properties import UPRIGHT, VideoFacts
from agsr.video.stream_copy import Plan


def with_xmp(plan: Plan, source: Path, facts: VideoFacts, encoding: Encoding) -> tuple[Plan, str]:
    """Add what is still true of the source's XMP to a plan.

    Returns:
        The plan, and what is lost, as a sentence; empty for nothing.
    """
    packet = None if plan.strip else stored_xmp(source)
    if packet is None:
        return plan, ""
    if plan.form != "mp4":
        return plan, f"its XMP is lost: it is not written into {plan.form}; use .mp4"
    moved = facts.crop is not None or facts.orientation != UPRIGHT
    kept, lost = packets.without_false(packet.rstrip(b"\0"), moved)
    if kept is not None:
        kept = packets.for_size(kept, facts.shown_size, (encoding.height, encoding.width))
    told = f"the result is without its {listed(lost)}" if lost else ""
    return replace(plan, xmp=kept or b""), told
