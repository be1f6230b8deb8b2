"""Run a trial before the work: write a file in memory with one packet of every stream.

The source's streams, from `agsr.video.packet_survey`, give a `Plan` that the container accepts, and
a list of losses. The trial is read back and compared with the source, which reveals silent drops.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agsr.video.encoder import Encoding
from agsr.video.packet_survey import FirstPacket
from agsr.video.properties import side_data
from agsr.video.reader import av, is_cover, open_container, picture_stream
from agsr.video.sample import Trials
from agsr.video.stream_copy import (
    Plan,
    cover_file,
    file_metadata,
    is_rewritten,
    is_statistic,
    stream_metadata,
)

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.stream import Stream

_NOT_CONTENT = {"handler_name", "vendor_id", "language", "filename", "mimetype", "encoder"}
"""Stream metadata that containers write themselves, or that is compared elsewhere."""

_OTHER_NAMES = {"date": {"year", "date_released", "date"}, "year": {"date", "date_released"}}
"""Equivalent keys in other containers."""


@dataclass(frozen=True)
class Trial:
    """Result of a trial."""

    plan: Plan
    """Accepted by the container."""
    lost: tuple[str, ...]
    """Messages about losses."""
    sides: frozenset[str]
    """Types of picture side data in the result."""


def run_trial(
    source: Path | None,
    encoding: Encoding,
    plan: Plan,
    first: Mapping[int, FirstPacket],
    max_pixels: int,
) -> Trial:
    """Determine what a container accepts and loses, before anything is computed.

    Args:
        source: File from which other streams are copied, if any.
        encoding: Encoding of the picture.
        plan: Container and ``strip``; its streams are chosen here.
        first: First packet of each source stream.
        max_pixels: Pixel limit for the source.

    Raises:
        VideoError: The container rejects even the picture.
    """
    if source is None:
        return _compared(Trials(None, encoding, first).of(plan), None, encoding, plan, [])
    with open_container(source, str(source), max_pixels) as container:
        trials = Trials(container, encoding, first)
        plan, lost = _accepted(container, trials, plan, first)
        return _compared(trials.of(plan), container, encoding, plan, lost)


def _accepted(
    container: InputContainer, trials: Trials, plan: Plan, first: Mapping[int, FirstPacket]
) -> tuple[Plan, list[str]]:
    """Return the plan with every stream that the container accepts, and the losses."""
    main = picture_stream(container, container.name).index
    streams = [s for s in container.streams if s.index != main and not is_rewritten(container, s)]
    if plan.strip:
        streams = [s for s in streams if s.type != "data"]
    whole = plan
    for stream in streams:
        whole = _with(whole, stream, first)
    if trials.accepted(whole):
        return whole, []
    bare = replace(plan, timecode=trials.accepted(plan))
    lost = [] if bare.timecode else ["its timecode is lost: {form} rejects it"]
    for stream in streams:
        wider = _with(bare, stream, first)
        if trials.accepted(wider):
            bare = wider
        else:
            lost.append(f"{_named(stream)} is dropped: {{form}} can't hold it{{better}}")
    return bare, lost


def _with(plan: Plan, stream: Stream, first: Mapping[int, FirstPacket]) -> Plan:
    if is_cover(stream) and plan.form == "matroska" and cover_file(stream):
        covers = {**plan.covers, stream.index: first[stream.index].data}
        return replace(plan, covers=covers) if stream.index in first else plan
    return replace(plan, copied=plan.copied | {stream.index})


def _compared(
    sink: io.BytesIO,
    container: InputContainer | None,
    encoding: Encoding,
    plan: Plan,
    lost: list[str],
) -> Trial:
    """Compare the trial file with the source."""
    better = "" if plan.form == "matroska" else "; .mkv may"
    lost = [text.format(form=plan.form, better=better) for text in lost]
    sink.seek(0)
    with av().open(sink, metadata_errors="replace") as made:
        if container is not None:
            lost += _streams_lost(container, made, plan, better)
            lost += _file_lost(container, made, plan)
        frame = next(made.decode(made.streams.video[0]), None)
        lost += _picture_lost(made.streams.video[0], frame, encoding, plan)
        return Trial(plan, tuple(lost), frozenset(side_data(frame) if frame else ()))


def _streams_lost(
    container: InputContainer, made: InputContainer, plan: Plan, better: str
) -> list[str]:
    """Report streams and stream metadata missing from the trial."""
    main = picture_stream(container, container.name).index
    there = {
        kind: [s for s in made.streams if _kind(s) == kind] for kind in map(_kind, made.streams)
    }
    lost = []
    for stream in container.streams:
        picture = stream.index == main
        if not picture and stream.index not in plan.copied | set(plan.covers):
            continue
        same = there.get(_kind(stream))
        if not same:
            lost.append(f"{_named(stream)} is dropped: {plan.form} can't hold it{better}")
            continue
        lost += _metadata_lost(stream, same.pop(0), plan, picture)
    if there.get(("subtitle", False)) and container.chapters():
        lost.append(
            f"its chapters also appear as a subtitle track: without sound, {plan.form} links "
            "either them or a timecode to the picture"
        )
    return lost


def _metadata_lost(stream: Stream, found: Stream, plan: Plan, picture: bool) -> list[str]:
    """Report metadata, language and disposition missing from a trial's stream."""
    wanted = stream_metadata(stream, plan, picture=picture)
    missing = _missing(wanted, {**found.metadata, **_timecodes(found.container)})
    language = stream.metadata.get("language", "und")
    if language != "und" and found.metadata.get("language", "und") == "und":
        missing.append("language")
    flags = type(stream.disposition)(int(stream.disposition) & ~int(found.disposition))
    if stream.type != "attachment" and flags:
        missing += [str(flag.name) for flag in type(flags) if flag & flags]
    if not missing:
        return []
    return [f"{_named(stream)}: {plan.form} has no place for its {', '.join(missing)}"]


def _file_lost(container: InputContainer, made: InputContainer, plan: Plan) -> list[str]:
    lost = []
    if not plan.strip:
        missing = _missing(file_metadata(container.metadata, plan), dict(made.metadata))
        if missing:
            lost.append(f"{plan.form} has no place for its metadata {', '.join(missing)}")
    chapters, stored = container.chapters(), made.chapters()
    if len(stored) < len(chapters):
        lost.append(f"{plan.form} holds {len(stored)} of its {len(chapters)} chapters")
    return lost


def _missing(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return missing keys, ignoring case; a timecode with another value counts as missing."""
    there = {key.lower(): text for key, text in found.items()}
    missing = []
    for key, text in wanted.items():
        name = key.lower()
        if not text or is_statistic(key) or name in _NOT_CONTENT:
            continue
        if name == "title" and there.get("handler_name") == text:
            continue
        if not ({name} | _OTHER_NAMES.get(name, set())) & set(there):
            if name.rpartition("-")[0] not in there:  # title-eng beside title
                missing.append(key)
        elif name == "timecode" and there.get(name) != text:
            missing.append(key)
    return missing


def _timecodes(container: Any) -> dict[str, str]:
    for stream in container.streams:
        if "timecode" in stream.metadata:
            return {"timecode": stream.metadata["timecode"]}
    return {}


def _picture_lost(
    stream: Any, frame: VideoFrame | None, encoding: Encoding, plan: Plan
) -> list[str]:
    """Report aspect ratio and colour tags missing from the trial's picture."""
    lost = []
    if encoding.aspect not in (None, 1) and stream.sample_aspect_ratio != encoding.aspect:
        lost.append(
            f"its pixels are {encoding.aspect} as wide as high, which {encoding.encoder} in "
            f"{plan.form} does not record; use .mp4"
        )
    if frame is None:
        return lost
    asked = {
        "primaries": (encoding.primaries, frame.color_primaries),
        "transfer": (encoding.transfer, frame.color_trc),
        "matrix": (encoding.matrix, int(frame.colorspace)),
    }
    gone = [name for name, (want, have) in asked.items() if want not in (0, 2, have)]
    if gone:
        lost.append(
            f"colour tags are lost ({', '.join(gone)}): {encoding.encoder} in {plan.form} "
            "does not record them"
        )
    return lost


def _kind(stream: Stream) -> tuple[str, bool]:
    return stream.type, stream.type == "video" and is_cover(stream)


def _named(stream: Stream) -> str:
    name = getattr(stream, "name", None) or "unknown"
    kind = "cover" if stream.type == "video" and is_cover(stream) else stream.type
    language = stream.metadata.get("language", "")
    words = [kind, name, *([language] if language else [])]
    return f"stream {stream.index} ({', '.join(words)})"
