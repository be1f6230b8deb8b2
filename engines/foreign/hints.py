"""Hints: what the user knows of a foreign network's input and output, which is then not probed.

Data flow: ``NAME=VALUE,...`` or Python values → `Hints` → `agsr.engines.foreign.probe`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from agsr.contract import CHANNELS
from agsr.errors import HintsError

Layout = Literal["NCHW", "NHWC"]
Order = Literal["rgb", "bgr"]

PEAKS = (1, 255)
"""Possible values of white."""

RGBA = 4
"""Channels of a network that reads alpha."""


@dataclass(frozen=True)
class _Values:
    """Accepted values of a hint."""

    parse: Callable[[str], Any]
    """Converts a word; raises ValueError if it can't."""
    accepts: Callable[[Any], bool]
    words: str
    """Accepted words."""
    expected: str = ""
    """Accepted Python values; empty means `words`."""


def _choice(*values: Any) -> _Values:
    words = {str(value): value for value in values}
    return _Values(
        lambda word: words.get(word, word), lambda value: value in values, " or ".join(words)
    )


def _size(word: str) -> tuple[int, int]:
    width, height = map(int, word.split("x"))
    return height, width


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value))


_COUNT = _Values(int, _is_count, "a number from 1")

_HINTS = {
    "layout": _choice(*get_args(Layout)),
    "channels": _choice(1, CHANNELS, RGBA),
    "input_peak": _choice(*PEAKS),
    "output_peak": _choice(*PEAKS),
    "order": _choice(*get_args(Order)),
    "output_order": _choice(*get_args(Order)),
    "size": _Values(_size, _is_size, "WIDTHxHEIGHT, like 64x48", "(height, width), from 1 each"),
    "multiple": _COUNT,
    "minimum": _COUNT,
    "square": _Values(
        lambda word: {"yes": True, "no": False}[word],
        lambda value: isinstance(value, bool),
        "yes or no",
        "True or False",
    ),
    "output": _Values(str, lambda value: isinstance(value, str), "the name of an output"),
}


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Known properties of a network; None means unknown, to be probed.

    >>> Hints.parse("order=bgr,input_peak=255,size=64x48").size
    (48, 64)

    Raises:
        HintsError: A value is out of range, or two hints contradict one another.
    """

    layout: Layout | None = None
    """Order of the input's axes."""
    channels: int | None = None
    """3, 1 for luma, or 4 for RGB with alpha."""
    input_peak: int | None = None
    """Value of white in the input, 1 or 255."""
    output_peak: int | None = None
    """Value of white in the output, 1 or 255."""
    order: Order | None = None
    """Order of colours; None means RGB. It can't be probed: networks treat colours too much
    alike."""
    output_order: Order | None = None
    """Order of colours in the output; None means that of the input, unless the output shows red and
    blue exchanged."""
    size: tuple[int, int] | None = None
    """The only height and width that it accepts, LR pixels."""
    multiple: int | None = None
    """Heights and widths must be multiples of it."""
    minimum: int | None = None
    """Shortest side that it accepts, LR pixels."""
    square: bool = False
    """Whether height and width must be equal."""
    output: str | None = None
    """Name of the output, if there are several."""

    def __post_init__(self) -> None:
        for name, values in _HINTS.items():
            value = getattr(self, name)
            if value is not None and not values.accepts(value):
                raise HintsError(
                    f"hint {name} is {value!r}; expected {values.expected or values.words}"
                )
        if self.size is not None:
            self.check_no_size_rule("the hint size names the only accepted size")

    @classmethod
    def parse(cls, text: str) -> Hints:
        """Parse ``NAME=VALUE,...``, like ``order=bgr,input_peak=255,size=64x48`` (width x height).

        Raises:
            HintsError: A hint is unknown or repeated, or its value is invalid.
        """
        found: dict[str, Any] = {}
        for part in filter(None, map(str.strip, text.split(","))):
            name, _, word = part.partition("=")
            if name in found:
                raise HintsError(f"hint {name} is given twice; remove one")
            found[name] = _parsed(name, word)
        return cls(**found)

    def check_no_size_rule(self, reason: str) -> None:
        """Reject the hints that describe accepted sizes.

        Raises:
            HintsError: There is one; the message names it and the reason.
        """
        for name in ("multiple", "minimum", "square"):
            if getattr(self, name):
                raise HintsError(f"hint {name} has no effect: {reason}; remove it")


def _parsed(name: str, word: str) -> Any:
    if name not in _HINTS:
        raise HintsError(f"no hint named '{name}'; expected NAME=VALUE,... of {', '.join(_HINTS)}")
    values = _HINTS[name]
    try:
        value = values.parse(word)
        if word and values.accepts(value):
            return value
    except (KeyError, ValueError):
        pass
    raise HintsError(f"hint {name} is '{word}'; expected {values.words}")
