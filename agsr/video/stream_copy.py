"""Copy streams, covers, chapters and metadata of the source, as a `Plan` specifies.

The trial before the work (`agsr.video.trial`) and the complete file (`agsr.video.mux`) are
configured by the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agsr.video.encoder import Encoding
from agsr.video.reader import is_cover, picture_stream

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

_OF_FILE = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}
"""Keys of metadata about the file, not its content, in lower case."""

_STATISTICS = ("bps", "duration-", "number_of_", "_statistics_")
"""Prefixes of packet statistics that MKV tools write; wrong for the upscaled stream."""

_OF_PICTURE = {"encoder", "encoder_settings", "encoder_options", "encoded_library"} | {
    "encoded_library_settings", "rotate", "alpha_mode", "width", "height", "videodatarate",
}  # fmt: skip
"""Picture metadata that is wrong after upscaling, or that the muxer writes."""

_OF_SIZE = {"width", "height", "videodatarate", "framerate", "filesize", "datasize", "videosize"}
"""File metadata of FLV that is wrong after upscaling."""

_QUICKTIME_LANGUAGES = {
    "deu": "ger", "ell": "gre", "fas": "per", "isl": "ice", "nld": "dut", "sqi": "alb",
    "zho": "chi", "cze": "ces", "fre": "fra", "rum": "ron", "slo": "slk", "swe": "sve",
}  # fmt: skip
"""Languages with two ISO 639-2 codes: mapped to the one in FFmpeg's QuickTime table."""

COVER_TYPES = {
    "mjpeg": ("image/jpeg", "jpg"),
    "png": ("image/png", "png"),
    "gif": ("image/gif", "gif"),
    "bmp": ("image/bmp", "bmp"),
    "webp": ("image/webp", "webp"),
}
"""Media type and ending of covers by codec."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Contents of a result besides its picture."""

    form: str
    """FFmpeg's name of the container."""
    copied: frozenset[int] = frozenset()
    """Indices of the source's streams that are copied packet by packet."""
    covers: Mapping[int, bytes] = field(default_factory=dict)
    """Covers to attach as files (for MKV), by stream index in the source."""
    timecode: bool = True
    """Whether to write the start timecode as metadata, from which the muxer creates a track."""
    strip: bool = False
    """Copy only languages and file names of the metadata."""
    xmp: bytes = b""
    """XMP packet, for containers that support it."""


def configure(
    out: OutputContainer, encoding: Encoding, plan: Plan, container: InputContainer | None
) -> dict[int, Any]:
    """Add all streams and metadata to an output, and write its header.

    Returns:
        The output's streams by index in the source; without a source, the picture's is 0.
    """
    if container is None:
        streams: dict[int, Any] = {0: encoding.add_to(out)}
        out.start_encoding()
        return streams
    main = picture_stream(container, container.name).index
    streams = {}
    for stream in container.streams:
        if stream.index == main:
            streams[main] = encoding.add_to(out)
        elif stream.index in plan.covers:
            _attach(out, stream, plan.covers[stream.index])
        elif stream.index in plan.copied:
            streams[stream.index] = out.add_stream_from_template(stream, opaque=True)
    for index, added in streams.items():
        given = container.streams[index]
        added.disposition = int(given.disposition)
        added.metadata.update(stream_metadata(given, plan, picture=index == main))
    if not plan.strip:
        out.metadata.update(file_metadata(container.metadata, plan))
    out.set_chapters(container.chapters())
    out.start_encoding()
    return streams


def stream_metadata(stream: Stream, plan: Plan, *, picture: bool) -> dict[str, str]:
    """The metadata of a source's stream that is still true for the result, as its container has it.

    MP4 and MOV store, and players show, a track's name as that of its handler.
    """
    tags = _valid_tags(stream, plan, picture)
    title = next((text for key, text in tags.items() if key.lower() == "title"), "")
    if title and plan.form in ("mp4", "mov"):
        tags["handler_name"] = title
    if plan.form == "mov" and "language" in tags:
        tags["language"] = _QUICKTIME_LANGUAGES.get(tags["language"], tags["language"])
    return tags


def _valid_tags(stream: Stream, plan: Plan, picture: bool) -> dict[str, str]:
    if plan.strip:
        needed = {"language"}
        if stream.type == "attachment":
            needed |= {"filename", "mimetype"}
        return {key: text for key, text in stream.metadata.items() if key.lower() in needed}
    wrong = _OF_FILE | (_OF_PICTURE if picture else set())
    wrong |= set() if plan.timecode else {"timecode"}
    return {
        key: text
        for key, text in stream.metadata.items()
        if key.lower() not in wrong and not (picture and key.lower().startswith(_STATISTICS))
    }


def file_metadata(metadata: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Return the metadata of a source file that stays true for the result."""
    wrong = _OF_FILE | _OF_SIZE | (set() if plan.timecode else {"timecode"})
    return {key: text for key, text in metadata.items() if key.lower() not in wrong}


def is_statistic(key: str) -> bool:
    """Return True if a metadata key describes packets or the file, not its content."""
    return key.lower() in _OF_FILE or key.lower().startswith(_STATISTICS)


def is_rewritten(container: InputContainer, stream: Stream) -> bool:
    """Return True for a data stream that the muxer creates: chapter text or a timecode."""
    if stream.type != "data":
        return False
    name = getattr(stream, "name", None)
    return "timecode" in stream.metadata or (name == "bin_data" and bool(container.chapters()))


def cover_file(stream: Stream) -> tuple[str, str] | None:
    """Return file name and media type of a cover attachment; None if the type is unknown."""
    known = COVER_TYPES.get(stream.codec_context.name if stream.codec_context else "")
    if known is None or not is_cover(stream):
        return None
    tags = {key.lower(): text for key, text in stream.metadata.items()}
    return tags.get("filename", f"cover.{known[1]}"), tags.get("mimetype", known[0])


def _attach(out: OutputContainer, stream: Stream, data: bytes) -> None:
    name, kind = cover_file(stream) or ("cover", "application/octet-stream")
    out.add_attachment(name, kind, data)
