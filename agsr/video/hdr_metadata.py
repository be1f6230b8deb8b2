"""Translate HDR10 static metadata to encoder options."""

from __future__ import annotations

from agsr.video.properties import HdrLight


def light_options(options: dict[str, str], name: str, hdr: HdrLight) -> list[str]:
    """Add HDR10 static metadata to an encoder's options.

    Args:
        options: Options of the encoder; modified in place.
        name: One of `agsr.video.formats.CODECS`.
        hdr: Metadata of the source.

    Returns:
        Messages about losses.
    """
    if hdr == HdrLight():
        return []
    if name not in ("hevc", "av1"):
        return [
            f"HDR10's mastering display and light levels are lost: {name} can't store them here"
        ]
    parts = _x265_light(hdr) if name == "hevc" else _svt_light(hdr)
    key = "x265-params" if name == "hevc" else "svtav1-params"
    options[key] = ":".join(filter(None, (options.get(key, ""), *parts)))
    return []


def _x265_light(hdr: HdrLight) -> list[str]:
    parts = []
    if hdr.primaries and hdr.luminance:
        r, g, b, white = _points(tuple(round(value * 50_000) for value in hdr.primaries))
        low, high = (round(value * 10_000) for value in hdr.luminance)
        parts.append(f"master-display=G{g}B{b}R{r}WP{white}L({high},{low})")
    if hdr.levels:
        parts.append(f"max-cll={hdr.levels[0]},{hdr.levels[1]}")
    return parts


def _svt_light(hdr: HdrLight) -> list[str]:
    parts = []
    if hdr.primaries and hdr.luminance:
        r, g, b, white = _points(hdr.primaries)
        low, high = hdr.luminance
        parts.append(f"mastering-display=G{g}B{b}R{r}WP{white}L({high:.4f},{low:.4f})")
    if hdr.levels:
        parts.append(f"content-light={hdr.levels[0]},{hdr.levels[1]}")
    return parts


def _points(values: tuple[float, ...]) -> list[str]:
    """Format eight numbers as four bracketed points."""
    texts = [str(value) if isinstance(value, int) else f"{value:.5f}" for value in values]
    return [f"({x},{y})" for x, y in zip(texts[::2], texts[1::2], strict=True)]
