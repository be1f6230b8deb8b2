"""Options of a request: a table that both `agsr.serve.options` and the OpenAPI document read.

Names, ranges and choices are those of ``agsr infer``; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agsr.contract import MAX_STEPS, PRECISIONS
from agsr.image.formats.names import FORMAT_ALIASES, FORMAT_CHOICES
from agsr.image.ops.output_size import LARGEST, LARGEST_SIDE
from agsr.serve.problems import Problem
from agsr.system.text import did_you_mean
from agsr.video.formats import CODECS

_YES, _NO = ("1", "true", "yes", "on", ""), ("0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An option of a request."""

    name: str
    """With underscores; requests may also use hyphens."""
    type: str = "string"
    """JSON schema's name: string, integer, number or boolean."""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    exclusive: bool = False
    """Whether the minimum itself is excluded."""
    text: str
    example: Any = None
    video: bool | None = None
    """True for videos only, False for images only."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the value."""
        lowest = "exclusiveMinimum" if self.exclusive else "minimum"
        found = {"enum": list(self.choices), lowest: self.minimum, "maximum": self.maximum}
        known = {key: value for key, value in found.items() if value not in (None, [])}
        return {"type": self.type} | known

    def parse(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            Problem: It is not of the type, or out of range.
        """
        if self.type == "boolean":
            return self._flag(text)
        if self.choices:
            return self._choice(text.lower().removeprefix("."))
        return text if self.type == "string" else self._number(text)

    def _flag(self, text: str) -> bool:
        if text.lower() not in _YES + _NO:
            raise self._bad(text, "true or false")
        return text.lower() in _YES

    def _choice(self, word: str) -> str:
        word = FORMAT_ALIASES.get(word, word) if self.name == "format" else word
        if word not in self.choices:
            raise self._bad(word, f"one of {', '.join(self.choices)}")
        return word

    def _number(self, text: str) -> float:
        low = 1 if self.minimum is None else self.minimum
        high = LARGEST_SIDE if self.maximum is None else self.maximum
        try:
            value = int(text) if self.type == "integer" else float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high or (self.exclusive and value == low):
            kind = "a whole number" if self.type == "integer" else "a number"
            above = "above" if self.exclusive else "from"
            raise self._bad(text, f"{kind} {above} {low:g} to {high:g}")
        return value

    def _bad(self, found: str, expected: str) -> Problem:
        return Problem(400, "bad_option", f"{self.name} is {found[:60]!r}; expected {expected}")


PARAMETERS: Final = (
    Parameter(name="weights", text="Weights by name; GET /v1/models lists them.", example="photo"),
    Parameter(
        name="steps",
        type="integer",
        minimum=1,
        maximum=MAX_STEPS,
        text="Time steps of the attention loop: more is slower and better.",
        example=4,
    ),
    Parameter(
        name="precision",
        choices=("auto", *PRECISIONS),
        text="Arithmetic of the network; GET /v1/models lists what runs here.",
        example="fp32",
    ),
    Parameter(
        name="tta",
        type="boolean",
        text="Average the results of all turns and mirrorings: eight times as long.",
    ),
    Parameter(
        name="scale",
        type="number",
        minimum=0,
        maximum=LARGEST,
        exclusive=True,
        text="Output pixels per input pixel along each axis. Default: that of the network.",
        example=2,
    ),
    Parameter(
        name="max_size",
        type="integer",
        minimum=1,
        maximum=LARGEST_SIDE,
        text="Longest side of the result, pixels.",
        example=4000,
    ),
    Parameter(name="to", text="Fit the result inside WIDTHxHEIGHT.", example="3840x2160"),
    Parameter(
        name="format",
        choices=FORMAT_CHOICES,
        text="Format of the result; 'same' is that of the input, or png if it can't be written. "
        "Default: the Accept header's, else png; for videos their own.",
        example="png",
    ),
    Parameter(
        name="quality",
        type="integer",
        minimum=1,
        maximum=100,
        text="Quality of lossy images. Default: jpg 95, avif 90, webp lossless.",
        video=False,
    ),
    Parameter(
        name="strip",
        type="boolean",
        text="Write no EXIF, XMP and DPI, but the ICC profile; for videos, no titles and places.",
    ),
    Parameter(
        name="separate_alpha",
        type="boolean",
        text="Alpha is data like gloss or height, not opacity: colours under 0 are preserved.",
        video=False,
    ),
    Parameter(
        name="normal_map",
        type="boolean",
        text="The input is a tangent-space normal map.",
        video=False,
    ),
    Parameter(
        name="border",
        choices=("mirror", "wrap"),
        text="What lies beyond the picture: 'mirror' for flat graphics, 'wrap' for tiles.",
    ),
    Parameter(
        name="codec",
        choices=CODECS,
        text="Codec of a video. Default: h264; above 8 bits hevc; in .webm vp9.",
        video=True,
    ),
    Parameter(
        name="crf",
        type="integer",
        minimum=0,
        maximum=63,
        text="Quality of a video: smaller is better. Default: visually lossless.",
        video=True,
    ),
    Parameter(name="preset", text="Speed of the encoder, in its own words.", video=True),
    Parameter(
        name="name",
        text="File name of the input, from which the result's is made; folders are removed.",
        example="cat.jpg",
    ),
)
"""Every option."""

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_OTHER_NAMES = {"ext": "format", "outscale": "scale"}

NAMES: Final = frozenset({*_BY_NAME, *_OTHER_NAMES})
"""Names of all options, with underscores."""


def parameter_named(name: str) -> Parameter:
    """Return the parameter with a name.

    Raises:
        Problem: There is none.
    """
    plain = name.replace("-", "_")
    found = _BY_NAME.get(_OTHER_NAMES.get(plain, plain))
    if found is None:
        hint = did_you_mean(plain, _BY_NAME).strip() or f"known: {', '.join(_BY_NAME)}"
        raise Problem(400, "unknown_option", f"no option named {name[:60]!r}; {hint}")
    return found
