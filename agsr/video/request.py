"""Test encoder options before long work, and explain why they fail.

The command line's options go to `check_encoding` before any source is opened; the `Encoding` for a
source goes to `try_open`. FFmpeg's own message appears only as the reason.
"""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from functools import partial

from agsr.errors import EncodingRequestError, VideoError, check_any
from agsr.system.text import listed
from agsr.video.codecs import ENCODERS
from agsr.video.encoder import Encoding, available, choose, default_codec
from agsr.video.formats import WRITABLE
from agsr.video.properties import VideoProperties
from agsr.video.reader import av, reason_of

_SAMPLE = VideoProperties(
    width=640,
    height=360,
    pix_fmt="yuv420p",
    depth=8,
    chroma="420",
    chroma_location="left",
    rgb=False,
    grey=False,
    matrix=1,
    full_range=False,
    primaries=1,
    transfer=1,
    aspect=None,
    time_base=Fraction(1, 25),
    rate=Fraction(25),
)
"""Properties of a source that every encoder accepts."""

_NAMES = {"mp4": "MP4", "mov": "MOV", "matroska": "MKV", "webm": "WebM"}
"""Common names of containers, by FFmpeg's names."""


def check_encoding(
    name: str, form: str, *, codec: str | None, crf: int | None, preset: str | None
) -> None:
    """Reject options that fail for every source.

    Args:
        name: File name of the result, for messages.
        form: FFmpeg's name of the container.
        codec: One of `ENCODERS`; None selects by container and source.
        crf: Quality, or None.
        preset: Encoder preset, or None.

    Raises:
        EncodingRequestError: Every codec that could be selected rejects them.
        VideoError: This build of FFmpeg lacks the encoder.
    """
    candidates = [codec] if codec else _usual_codecs(form)
    check_any(partial(_try, name, form, each, crf, preset) for each in candidates)


def _try(name: str, form: str, codec: str, crf: int | None, preset: str | None) -> None:
    size = _SAMPLE.height, _SAMPLE.width
    encoding, _ = choose(_SAMPLE, size, form, codec=codec, crf=crf, preset=preset)
    try_open(encoding, form, name)


def try_open(encoding: Encoding, form: str, name: str) -> bytes:
    """Open the encoder and container once, to find errors before long work.

    Returns:
        The encoder's extradata.

    Raises:
        EncodingRequestError: The container can't hold the codec, or the preset is unknown.
        VideoError: The encoder rejects something else, like the size.
    """
    library = av()
    try:
        return _header(encoding, form)
    except (library.error.FFmpegError, ValueError) as error:
        reason = reason_of(error)
    codec = next(key for key, known in ENCODERS.items() if known.encoder == encoding.encoder)
    if not _holds(form, encoding.encoder):
        raise EncodingRequestError(_not_held(name, codec, form))
    option = ENCODERS[codec].preset
    preset = dict(encoding.options).get(option)
    if preset is not None and _opens(_with_usual_preset(encoding, codec), form):
        raise EncodingRequestError(
            f"{name}: --preset {preset}: {codec} has no such preset ({reason}); expected "
            f"{ENCODERS[codec].presets}"
        )
    raise VideoError(_refused(name, codec, encoding, form, reason))


def _header(encoding: Encoding, form: str) -> bytes:
    container = av().open(io.BytesIO(), "w", format=form)
    stream = encoding.add_to(container)
    container.start_encoding()
    return bytes(stream.codec_context.extradata or b"")


def _opens(encoding: Encoding, form: str) -> bool:
    try:
        _header(encoding, form)
    except (av().error.FFmpegError, ValueError):
        return False
    return True


def _usual_codecs(form: str) -> list[str]:
    """Return the default codecs of a container."""
    kinds = ((depth, alpha) for alpha in (False, True) for depth in (8, 10))
    return list(dict.fromkeys(default_codec(form, *kind) for kind in kinds))


def _holds(form: str, encoder: str) -> bool:
    return encoder in av().open(io.BytesIO(), "w", format=form).supported_codecs


def _not_held(name: str, codec: str, form: str) -> str:
    here = [key for key in available() if _holds(form, ENCODERS[key].encoder)]
    endings = [
        ending
        for ending, other in WRITABLE.items()
        if other != form and _holds(other, ENCODERS[codec].encoder)
    ]
    others = f", or a name in {listed(endings, 'or')}" if endings else ""
    container = _NAMES.get(form, form)
    return f"{name}: {container} can't hold {codec}; use --codec {listed(here, 'or')}{others}"


def _with_usual_preset(encoding: Encoding, codec: str) -> Encoding:
    known = ENCODERS[codec]
    options = {key: value for key, value in encoding.options if key != known.preset}
    usual = {key: value for key, value in known.options.items() if key == known.preset}
    return replace(encoding, options=tuple(sorted((options | usual).items())))


def _refused(name: str, codec: str, encoding: Encoding, form: str, reason: str) -> str:
    others = listed([key for key in available() if key != codec], "or")
    size = f"{encoding.width}x{encoding.height}"
    if _opens(replace(encoding, width=_SAMPLE.width, height=_SAMPLE.height), form):
        return (
            f"{name}: {codec} can't encode pictures of {size} pixels ({reason}); use another size "
            f"(--scale, --max-size, --to), or --codec {others}"
        )
    what = f"{size} pixels of {encoding.pix_fmt}"
    return f"{name}: {codec} rejects {what} ({reason}); use --codec {others}"
