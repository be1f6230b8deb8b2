"""Carry the XMP of a video over to the upscaled one, as far as it stays true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agsr.image.metadata import xmp as packets
from agsr.system.text import listed
from agsr.video.boxes import stored_xmp
from agsr.video.encoder import Encoding
from agsr.video.properties import UPRIGHT, VideoProperties
from agsr.video.stream_copy import Plan
from agsr.video.xmp_writer import XMP_FORMS


def with_xmp(
    plan: Plan, source: Path, properties: VideoProperties, encoding: Encoding
) -> tuple[Plan, str]:
    """Add the parts of the source's XMP that stay true to a plan.

    Returns:
        The plan, and a sentence about what is lost; empty if nothing is.
    """
    packet = None if plan.strip else stored_xmp(source)
    if packet is None:
        return plan, ""
    if plan.form not in XMP_FORMS:
        return plan, f"its XMP is lost: it is not written into {plan.form}; use .mp4 or .mov"
    moved = properties.crop is not None or properties.orientation != UPRIGHT
    packet, lost = packets.without_false(packet.rstrip(b"\0"), moved)
    if packet is not None:
        packet = packets.for_size(packet, properties.shown_size, (encoding.height, encoding.width))
    warning = f"the result lacks its {listed(lost)}" if lost else ""
    return replace(plan, xmp=packet or b""), warning
