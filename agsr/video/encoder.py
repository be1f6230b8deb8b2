"""Choose how a result is encoded: codec, options, pixel layout and colour tags.

An `Encoding` is chosen once and configures every segment and the complete file, so that their
packets are compatible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agsr.errors import EncodingRequestError, VideoError
from agsr.system.cpu import is_limited, thread_count
from agsr.video.codecs import ENCODERS, THREADS, Codec
from agsr.video.hdr_metadata import light_options
from agsr.video.properties import VideoProperties, has_alpha
from agsr.video.reader import av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream


_ALPHA: Mapping[str, tuple[str, ...]] = {
    "vp9": ("matroska", "webm"),
    "prores": ("mov", "matroska"),
    "ffv1": ("mov", "matroska"),
}
"""Containers in which a codec supports alpha."""


_ROW, _MOST_THREADS = 16, 128
"""Height of x264's rows of blocks, and its largest number of threads, which share at least two."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Everything but the pictures that determines an encoder's output."""

    encoder: str
    options: tuple[tuple[str, str], ...]
    width: int
    height: int
    pix_fmt: str
    depth: int
    """Bit depth of the input pictures: 8, or more for uint16."""
    matrix: int
    full_range: bool
    primaries: int
    transfer: int
    aspect: Fraction | None
    time_base: Fraction
    rate: Fraction

    @property
    def alpha(self) -> bool:
        """Whether pictures have alpha."""
        return has_alpha(self.pix_fmt)

    @property
    def threads(self) -> int:
        """Number of threads that determines the output, as x264's does; 0 for other encoders.

        It follows from the CPUs of this process.
        """
        if self.encoder != "libx264":
            return 0
        rows = -(-self.height // _ROW)
        return max(1, min(thread_count(None), rows // 2, _MOST_THREADS))

    def add_to(self, container: OutputContainer, threads: int = 0) -> VideoStream:
        """Add a configured, unopened video stream to an output.

        Args:
            container: The output.
            threads: `threads` of the process whose output this one continues; 0 for this one's.
        """
        stream: Any = container.add_stream(
            self.encoder,
            rate=self.rate,
            width=self.width,
            height=self.height,
            time_base=self.time_base,
            options=dict(self.options) | self._limits(),
        )
        context = stream.codec_context
        if threads := threads or self.threads:
            context.thread_count = threads
        elif is_limited():  # FFmpeg knows nothing of control groups
            context.thread_count = thread_count(None)
        context.pix_fmt = self.pix_fmt
        context.colorspace, context.color_range = self.matrix, 2 if self.full_range else 1
        context.color_primaries, context.color_trc = self.primaries, self.transfer
        if self.aspect:
            context.sample_aspect_ratio = self.aspect
        if self.encoder == "libx265" and container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # required by Apple's players
        return stream  # type: ignore[no-any-return]

    def _limits(self) -> dict[str, str]:
        """Return thread limits for encoders that choose their own number of threads."""
        name, limit = THREADS.get(self.encoder, ("", ""))
        if not name or not is_limited():
            return {}
        given = dict(self.options).get(name)
        return {name: ":".join(filter(None, (given, f"{limit}={thread_count(None)}")))}


def choose(
    properties: VideoProperties,
    size: tuple[int, int],
    form: str,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
) -> tuple[Encoding, list[str]]:
    """Choose how a result is encoded.

    Args:
        properties: Properties of the source.
        size: Height and width of the result.
        form: FFmpeg's name of the container.
        codec: One of `ENCODERS`; None selects by container and depth.
        crf: Quality, smaller is better; None means visually lossless.
        preset: The encoder's trade-off between time and size.

    Returns:
        The encoding, and messages about losses.

    Raises:
        EncodingRequestError: The codec has no such option or value.
        VideoError: This build of FFmpeg lacks the encoder.
    """
    name = codec or default_codec(form, properties.depth, properties.alpha)
    known = ENCODERS[name]
    alpha = properties.alpha and form in _ALPHA.get(name, ())
    pix_fmt = _pix_fmt(known.encoder, properties, alpha)
    options = dict(known.options) | _quality(name, known, crf, preset)
    if name == "vp9" and alpha:
        options["auto-alt-ref"] = "0"  # libvpx rejects alpha otherwise
    lost = _depth_lost(pix_fmt, properties, name) + light_options(options, name, properties.hdr)
    lost += _alpha_lost(properties, alpha, name, form)
    if name == "prores":
        options["profile"] = "4" if "444" in pix_fmt else "3"
    encoding = Encoding(
        encoder=known.encoder,
        options=tuple(sorted(options.items())),
        width=size[1],
        height=size[0],
        pix_fmt=pix_fmt,
        depth=properties.depth,
        matrix=properties.matrix,
        full_range=properties.full_range and not properties.rgb,
        primaries=properties.primaries,
        transfer=properties.transfer,
        aspect=properties.shown_aspect,
        time_base=properties.time_base,
        rate=properties.rate,
    )
    return encoding, lost


def default_codec(form: str, depth: int, alpha: bool = False) -> str:
    """Return the default codec: the most compatible for the container, depth and alpha.

    >>> default_codec("mp4", 8), default_codec("mp4", 10), default_codec("mov", 8, alpha=True)
    ('h264', 'hevc', 'prores')
    """
    if alpha and form in ("matroska", "webm"):
        return "vp9" if form == "webm" or depth <= 8 else "ffv1"
    if alpha and form == "mov":
        return "prores"
    if form == "webm":
        return "vp9"
    return "h264" if depth <= 8 else "hevc"


def available() -> list[str]:
    """Return the codecs whose encoders are in this build of FFmpeg."""
    return [name for name, codec in ENCODERS.items() if _is_available(codec.encoder)]


def _is_available(encoder: str) -> bool:
    library = av()
    try:
        library.codec.Codec(encoder, "w")
    except library.codec.codec.UnknownCodecError:
        return False
    return True


def _quality(name: str, codec: Codec, crf: int | None, preset: str | None) -> dict[str, str]:
    options = {}
    if crf is not None and codec.crf is None:
        raise EncodingRequestError(f"--crf {crf}: {name} has none; remove it, or use h264 or hevc")
    if crf is not None and not codec.crf_range[0] <= crf <= codec.crf_range[1]:
        low, high = codec.crf_range
        raise EncodingRequestError(
            f"--crf {crf}: {name} accepts {low} to {high}; smaller is better"
        )
    if codec.crf is not None:
        options["crf"] = str(codec.crf if crf is None else crf)
    if preset is not None and not codec.preset:
        raise EncodingRequestError(f"--preset {preset}: {name} has none; remove it")
    if preset is not None:
        options[codec.preset] = preset
    return options


def _alpha_lost(properties: VideoProperties, alpha: bool, name: str, form: str) -> list[str]:
    if properties.alpha_unread:
        return ["its transparency is lost: no installed decoder supports it"]
    if not properties.alpha or alpha:
        return []
    return [
        f"its transparency is lost: {name} in {form} doesn't support it; use .webm, or --codec "
        "prores with .mov, or --codec ffv1 with .mkv"
    ]


def _pix_fmt(encoder: str, properties: VideoProperties, alpha: bool) -> str:
    """Return the encoder's pixel layout closest to the source's, with the least loss."""
    if not _is_available(encoder):
        raise VideoError(
            f"this build of FFmpeg lacks the encoder {encoder}; available: {', '.join(available())}"
        )
    formats = av().codec.Codec(encoder, "w").video_formats or ()
    known = {form.name for form in formats}
    for chroma, depth in _layouts_by_preference(properties):
        name = f"yuv{'a' * alpha}{chroma}p" + ("" if depth == 8 else f"{depth}le")
        if name in known:
            return name
    raise VideoError(f"{encoder} supports none of the usual layouts: {' '.join(sorted(known))}")


def _layouts_by_preference(properties: VideoProperties) -> Iterator[tuple[str, int]]:
    """Yield chroma and depth, best first: lossless, then less depth, then less chroma."""
    chromas, depths = ["420", "422", "444"], [8, 10, 12]
    depth = next((bits for bits in depths if bits >= properties.depth), depths[-1])
    higher = [bits for bits in depths if bits >= depth]
    lower = [bits for bits in reversed(depths) if bits < depth]
    at = chromas.index(properties.chroma)
    for chroma in (*chromas[at:], *reversed(chromas[:at])):
        for bits in (*higher, *lower):
            if bits in higher or chroma == properties.chroma or chroma == "420":
                yield chroma, bits


def _depth_lost(pix_fmt: str, properties: VideoProperties, name: str) -> list[str]:
    depth = next((bits for bits in (10, 12) if pix_fmt.endswith(f"{bits}le")), 8)
    lost = []
    if depth < min(properties.depth, 16):
        lost.append(
            f"{properties.depth} bits per component become {depth}, the maximum of {name} here"
        )
    if properties.chroma not in pix_fmt and properties.chroma > pix_fmt.replace("a", "")[3:6]:
        lost.append(
            f"colour of 4:{properties.chroma[1]}:{properties.chroma[2]} becomes that of {pix_fmt}"
        )
    return lost
