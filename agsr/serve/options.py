"""From a request's query to `RequestOptions`: sizes, format, textures, and what contradicts itself.

`agsr.serve.parameters` has the names and ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

from agsr.contract import MAX_FOREIGN_SCALE
from agsr.image.encode import FORMATS
from agsr.image.formats.names import IMAGE_FORMATS, VIDEO_FORMATS
from agsr.image.ops.output_size import LARGEST_SIDE, OutputSize
from agsr.serve.parameters import parameter_named
from agsr.serve.problems import Problem
from agsr.serve.settings import ServeSettings
from agsr.system.text import printable

MEDIA_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".tga": "image/x-tga",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
}
"""Media types of results by ending."""

_EXCLUSIVE = (("scale", "max_size"), ("scale", "to"), ("max_size", "to"))
_SIZE = re.compile(r"(\d{1,7})[xX](\d{1,7})")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What a request asks for."""

    weights: str
    """Public name of the weights."""
    steps: int | None
    precision: str | None
    sizing: OutputSize
    format: str | None
    """Without the dot; ``same`` for the input's, None for the default."""
    quality: int | None = None
    strip: bool = False
    separate_alpha: bool = False
    normal_map: bool = False
    border: str | None = None
    tta: bool = False
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    name: str = ""
    """File name of the input, without folders; may be empty."""
    given: frozenset[str] = frozenset()
    """Names of the options that the request has."""


def parse_options(
    pairs: Iterable[tuple[str, str]], settings: ServeSettings, accept: str | None = None
) -> RequestOptions:
    """Return what a query asks for.

    Args:
        pairs: Names and values.
        settings: For the names of weights and the defaults.
        accept: ``Accept`` header that chooses the format; None where it doesn't apply.

    Raises:
        Problem: An option is unknown, given twice, out of range, or contradicts another.
    """
    found: dict[str, Any] = {}
    for name, text in pairs:
        parameter = parameter_named(name)
        if parameter.name in found:
            raise Problem(400, "bad_option", f"{parameter.name} is given twice; remove one")
        found[parameter.name] = parameter.parse(text)
    _check_contradictions(found)
    if "format" not in found and accept is not None:
        found["format"] = accepted_format(accept)
    sizes = {name: found.pop(name, None) for name in ("scale", "max_size", "to")}
    given = frozenset(found)
    weights = found.pop("weights", settings.default_name)
    if weights not in settings.names:
        known = ", ".join(settings.names)
        raise Problem(400, "unknown_weights", f"no weights named {weights[:60]!r}; known: {known}")
    running = settings.running_for(settings.names[weights])
    defaults = {name: running.get(name) for name in ("steps", "precision", "border")}
    defaults["tta"] = bool(running.get("tta"))
    rest = {"format": None, **defaults, **found, "name": clean_name(found.get("name", ""))}
    network = settings.declared_scale(settings.names[weights]) or MAX_FOREIGN_SCALE
    sizing = _sizing(network=network, **sizes)
    return RequestOptions(weights=weights, sizing=sizing, given=given, **rest)


def _check_contradictions(found: Mapping[str, Any]) -> None:
    for pair in _EXCLUSIVE:
        if all(name in found for name in pair):
            raise Problem(400, "bad_option", f"{' and '.join(pair)} exclude one another")
    if not found.get("normal_map"):
        return
    if "quality" in found:
        raise Problem(
            400, "bad_option", "normal_map and quality contradict one another: lossy vectors"
        )
    if found.get("separate_alpha"):
        raise Problem(400, "bad_option", "normal_map implies separate_alpha; remove it")
    form = FORMATS.get(f".{found.get('format')}")
    if form is not None and form.lossy:
        raise Problem(400, "bad_option", "normal_map needs a lossless format; use png")


def _sizing(network: int, scale: float | None, max_size: int | None, to: str | None) -> OutputSize:
    """Return the size for a network of this scale; it is bound again when that is loaded."""
    if to is None:
        box = None if max_size is None else (max_size, max_size)
        try:
            return OutputSize(scale=scale, box=box, network=network)
        except ValueError as error:
            raise Problem(400, "bad_option", str(error)) from None
    match = _SIZE.fullmatch(to)
    box = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < min(box) <= max(box) <= LARGEST_SIDE:
        raise Problem(400, "bad_option", f"to is {to[:60]!r}; expected WIDTHxHEIGHT like 1920x1080")
    return OutputSize(box=box, network=network)


def accepted_format(accept: str) -> str | None:
    """Return the format that an ``Accept`` header prefers; None for any.

    >>> accepted_format("image/webp, image/*;q=0.5"), accepted_format("*/*")
    ('webp', None)

    Raises:
        Problem: It accepts no format that can be written.
    """
    by_type = {MEDIA_TYPES[f".{name}"]: name for name in (*IMAGE_FORMATS, *VIDEO_FORMATS)}
    for kind in _preferred(accept):
        if kind in ("*/*", "image/*", "video/*"):
            return None
        if kind in by_type:
            return by_type[kind]
    raise Problem(406, "not_acceptable", f"expected one of {', '.join(by_type)} in Accept")


def _preferred(accept: str) -> list[str]:
    """Return the types of an ``Accept`` header, the preferred first, without excluded ones."""
    weighted = []
    for part in accept.lower().split(",")[:50]:
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if kind and re.fullmatch(r"[01](\.\d{0,3})?", quality) and float(quality) > 0:
            weighted.append((-float(quality), kind))
    return [kind for _, kind in sorted(weighted, key=lambda item: item[0])] or ["*/*"]


def clean_name(name: str) -> str:
    """Return a file name without folders and control characters, at most 120 characters.

    >>> clean_name("../../etc/cat.jpg"), clean_name("C:\\\\x\\\\cat.jpg"), clean_name("..")
    ('cat.jpg', 'cat.jpg', '')
    """
    plain = PureWindowsPath(PurePosixPath(name.replace("\0", "")).name).name
    plain = printable(plain).replace("\\", "").strip(" .")
    if len(plain) > _LONGEST_NAME:
        suffix = suffix_of(plain)
        plain = plain[: _LONGEST_NAME - len(suffix)] + suffix
    return plain


def suffix_of(name: str) -> str:
    """Return the ending of a file name in lower case; empty if it has no plain one.

    >>> suffix_of("cat.JPG"), suffix_of("cat"), suffix_of("cat.j/pg")
    ('.jpg', '', '')
    """
    _, dot, ending = name.rpartition(".")
    return (dot + ending).lower() if _SUFFIX.fullmatch(dot + ending) else ""
