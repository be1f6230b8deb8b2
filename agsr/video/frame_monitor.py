"""Warn of properties that appear only in later frames of a video."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agsr.video.properties import INTERLACED, LOST_SIDE_DATA, VideoProperties, side_data

if TYPE_CHECKING:
    from av import VideoFrame

_log = logging.getLogger(__name__)


class FrameMonitor:
    """Warns once of each issue that first appears after the first frame.

    Args:
        properties: Properties of the first frame, already reported.
        name: File name for messages.
    """

    def __init__(self, properties: VideoProperties, name: str) -> None:
        self._name = name
        self._known = set(properties.sides)
        if INTERLACED in properties.warnings:
            self._known.add(INTERLACED)

    def check(self, number: int, frame: VideoFrame) -> None:
        """Check the next frame."""
        if frame.interlaced_frame:
            self._warn(number, INTERLACED, INTERLACED)
        for kind in side_data(frame):
            if kind in LOST_SIDE_DATA:
                self._warn(number, kind, LOST_SIDE_DATA[kind])

    def _warn(self, number: int, kind: str, text: str) -> None:
        if kind not in self._known:
            self._known.add(kind)
            _log.warning("%s: from frame %d on: %s", self._name, number, text)
