"""The contract of exported models and backends.

A network maps ``lr`` to ``sr``: both NCHW, RGB, float32, nominal range [0, 1], with ``sr`` as many
times as high and wide as its scale: 4 for networks of this project. ``export`` writes these names
and a `ModelMetadata` to ONNX files; ``engines`` reads and checks them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from agsr.errors import ModelError
from agsr.system.text import in_words

__all__ = [
    "CHANNELS",
    "DEFAULT_STEPS",
    "INPUT_NAME",
    "INT8_ZERO",
    "MAX_FOREIGN_SCALE",
    "MAX_STEPS",
    "OUTPUT_NAME",
    "PRECISIONS",
    "PREFIX",
    "SCALE",
    "TILINGS",
    "WINDOW",
    "ModelMetadata",
    "Precision",
    "SizeRule",
    "Tiling",
]

SCALE: Final = 4
"""Upscaling factor of this project's networks, output pixels per input pixel along each axis. What
runs a network of any origin reads `agsr.backend.BackendInfo.scale` instead."""

MAX_FOREIGN_SCALE: Final = 16
"""Upper limit for the scale of other projects' networks."""

WINDOW: Final = 16
"""Tiles of networks with unknown receptive field start at multiples of it: the commonest side of
the windows that networks divide a picture into."""

CHANNELS: Final = 3
"""RGB, in this order."""

INPUT_NAME: Final = "lr"
"""Name of the graph's input: ``(B, 3, H, W)`` float32, nominal range [0, 1]."""

OUTPUT_NAME: Final = "sr"
"""Name of the graph's output: ``(B, 3, sH, sW)`` float32, not clipped; s is the scale."""

DEFAULT_STEPS: Final = 4
"""Default number of time steps of the recurrent attention loop."""

MAX_STEPS: Final = 16
"""Upper limit for ``steps``; larger values are rejected as typos."""

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Arithmetic inside an exported graph; ``lr`` and ``sr`` are always float32. In ``int8``, most
convolutions are quantized by Q/DQ pairs, and the rest of the graph is float32."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""Every `Precision`."""

INT8_ZERO: Final = 128
"""Zero point of an int8 graph."""

PREFIX: Final = "agsr."
"""Prefix of our properties in an ONNX file."""


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Heights and widths that a network accepts.

    >>> SizeRule(minimum=16, multiple=8).padded(9, 20)
    (16, 24)
    >>> SizeRule(multiple=4, square=True).padded(9, 20)
    (20, 20)
    """

    minimum: int = 1
    """Shortest side, LR pixels."""
    multiple: int = 1
    """Both sides must be multiples of it."""
    square: bool = False
    """Both sides must be equal."""
    fixed: tuple[int, int] | None = None
    """The only accepted height and width, if there is one."""

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest accepted height and width that hold a picture of this size.

        If the size is fixed, return that; the picture may be larger.
        """
        if self.fixed is not None:
            return self.fixed
        if self.square:
            height = width = max(height, width)
        rows, columns = self._accepted(height), self._accepted(width)
        return rows, columns

    @property
    def tile_align(self) -> int:
        """What tiles of another project's network start at multiples of.

        A network for one size needs tiles of that, which alignment would exceed.

        >>> SizeRule(multiple=24).tile_align, SizeRule(fixed=(64, 64)).tile_align
        (48, 1)
        """
        return math.lcm(WINDOW, self.multiple) if self.fixed is None else 1

    def _accepted(self, side: int) -> int:
        return -(-max(side, self.minimum) // self.multiple) * self.multiple

    def to_properties(self) -> dict[str, str]:
        """Return what differs from the default, as values of ``agsr.size_*`` properties.

        >>> SizeRule(minimum=16, fixed=(64, 48)).to_properties()
        {'size_minimum': '16', 'size_fixed': '48x64'}
        """
        values: dict[str, object] = {"size_minimum": self.minimum, "size_multiple": self.multiple}
        found = {name: str(value) for name, value in values.items() if value != 1}
        if self.square:
            found["size_square"] = "true"
        if self.fixed is not None:
            found["size_fixed"] = f"{self.fixed[1]}x{self.fixed[0]}"
        return found

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> SizeRule:
        """Parse the values that `to_properties` wrote.

        Raises:
            ValueError: One is invalid.
        """
        fixed = None
        if "size_fixed" in properties:
            width, height = map(int, properties["size_fixed"].split("x"))
            fixed = height, width
        minimum, multiple = (int(properties.get(f"size_{n}", 1)) for n in ("minimum", "multiple"))
        if min(minimum, multiple, *(fixed or (1,))) < 1:
            raise ValueError("a size below 1")
        square = properties.get("size_square") == "true"
        return cls(minimum=minimum, multiple=multiple, square=square, fixed=fixed)


Tiling = Literal["supported", "discouraged", "internal"]
"""Whether a picture may be cut into tiles: with a large enough halo; only if memory requires it,
since the result differs; or never, since the network itself looks at all of it."""

TILINGS: tuple[Tiling, ...] = get_args(Tiling)
"""Every `Tiling`."""


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """Metadata of an exported graph: the ``agsr.*`` properties of the ONNX file.

    >>> metadata = ModelMetadata(
    ...     steps=4, precision="fp32", receptive_radius=36, config="{}",
    ...     weights_hash="", version="1",
    ... )
    >>> metadata.to_properties()["agsr.steps"]
    '4'
    >>> ModelMetadata.from_properties(metadata.to_properties(), "a.onnx") == metadata
    True
    """

    steps: int | None = None
    """Unrolled time steps; None for a network of another project, which has no loop."""
    precision: Precision
    """Arithmetic inside the graph."""
    receptive_radius: int | None = None
    """LR pixels to each side that an output pixel depends on: the halo of exact tiling. None if
    unknown, as for some networks of other projects."""
    config: str
    """Shape of the network as JSON: a `agsr.model.generator.GeneratorConfig`, or what is known of a
    network of another project."""
    weights_hash: str
    """`agsr.model.checkpoint.Checkpoint.weights_hash` of the exported weights; the SHA-256 of
    another project's file."""
    version: str
    """Version of agsr that wrote the file."""
    scale: int = SCALE
    """Upscaling factor."""
    architecture: str = ""
    """Architecture of another project's network; empty for networks of this project."""
    sizes: SizeRule = SizeRule()
    """Sizes that the graph accepts; backends pad smaller pictures."""
    tiling: Tiling = "supported"
    """Whether pictures may be cut."""
    bytes_per_pixel: int | None = None
    """Bytes of working memory per LR pixel, measured with torch in fp32; None if not measured."""

    def to_properties(self) -> dict[str, str]:
        """Return the key-value pairs for ONNX ``metadata_props``; defaults are omitted."""
        found: dict[str, object] = {name: getattr(self, name) for name in _ALWAYS}
        optional = ("steps", "receptive_radius", "architecture", "bytes_per_pixel")
        found |= {name: getattr(self, name) for name in optional if getattr(self, name)}
        if self.tiling != "supported":
            found["tiling"] = self.tiling
        found |= self.sizes.to_properties()
        return {PREFIX + name: str(value) for name, value in found.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelMetadata:
        """Rebuild metadata from what `dataclasses.asdict` made of it, also by way of JSON.

        Raises:
            TypeError: The values have other names or types.
        """
        sizes = dict(values.get("sizes") or {})
        if sizes.get("fixed"):
            sizes["fixed"] = tuple(sizes["fixed"])
        return cls(**{**values, "sizes": SizeRule(**sizes)})

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], source: str) -> ModelMetadata:
        """Read the properties of an ONNX file.

        Args:
            properties: All metadata properties of the file.
            source: Name of the file, for messages.

        Raises:
            ModelError: A property is missing, invalid, or not supported by this version.
        """
        text = {
            name.removeprefix(PREFIX): value
            for name, value in properties.items()
            if name.startswith(PREFIX)
        }
        _check_present(text, source)
        try:
            metadata = cls(
                precision=text["precision"],  # type: ignore[arg-type]  # checked just below
                config=text["config"],
                weights_hash=text["weights_hash"],
                version=text["version"],
                scale=int(text["scale"]),
                architecture=text.get("architecture", ""),
                sizes=SizeRule.from_properties(text),
                tiling=text.get("tiling", "supported"),  # type: ignore[arg-type]  # checked just below
                **{name: int(text[name]) for name in _NUMBERS if name in text},
            )
        except ValueError as error:
            raise ModelError(f"{source}: invalid metadata: {in_words(error)}") from None
        metadata._check(source)
        return metadata

    def _check(self, source: str) -> None:
        """Reject values that no version writes, or that this one doesn't run."""
        numbers = [n for n in (self.receptive_radius, self.bytes_per_pixel) if n is not None]
        steps = 1 if self.steps is None else self.steps
        if not 1 <= steps <= MAX_STEPS or min(numbers, default=1) < 1:
            raise ModelError(
                f"{source}: {self.steps} steps, receptive radius "
                f"{self.receptive_radius}: out of range"
            )
        if not 1 <= self.scale <= MAX_FOREIGN_SCALE or self.precision not in PRECISIONS:
            raise ModelError(
                f"{source}: scale {self.scale}, precision {self.precision}; this version "
                f"runs scale 1 to {MAX_FOREIGN_SCALE}, precision {' or '.join(PRECISIONS)}"
            )
        if self.tiling not in TILINGS:
            raise ModelError(
                f"{source}: tiling {self.tiling!r}; this version knows {', '.join(TILINGS)}"
            )


_ALWAYS = ("precision", "config", "weights_hash", "version", "scale")
"""Properties of every exported file."""

_OWN = ("steps", "receptive_radius")
"""Further properties of every exported network of this project."""

_NUMBERS = (*_OWN, "bytes_per_pixel")
"""Optional properties that are whole numbers."""


def _check_present(text: Mapping[str, str], source: str) -> None:
    required = _ALWAYS if text.get("architecture") else (*_OWN, *_ALWAYS)
    missing = [PREFIX + name for name in required if name not in text]
    if missing:
        raise ModelError(
            f"{source}: not exported by agsr: {', '.join(missing)} missing; make one with: "
            "agsr export"
        )
