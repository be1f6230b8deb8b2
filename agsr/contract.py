"""The contract of exported models and backends.

A network maps ``lr`` to ``sr``: both NCHW, RGB, float32, nominal range [0, 1], with ``sr`` as many
times as high and wide as its scale: 4 for networks of this project. ``export`` writes these names
and a `ModelMetadata` to ONNX files; ``engines`` reads and checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final, Literal, get_args

from agsr.errors import ModelError
from agsr.system.text import in_words

__all__ = [
    "CHANNELS",
    "DEFAULT_STEPS",
    "INPUT_NAME",
    "INT8_ZERO",
    "MAX_STEPS",
    "OUTPUT_NAME",
    "PRECISIONS",
    "PREFIX",
    "SCALE",
    "ModelMetadata",
    "Precision",
    "SizeRule",
    "format_steps",
]

SCALE: Final = 4
"""Upscaling factor of this project's networks, output pixels per input pixel along each axis. What
runs a network of any origin reads `agsr.backend.BackendInfo.scale` instead."""

MAX_FOREIGN_SCALE: Final = 16
"""Upper limit for the scale of other projects' networks."""

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

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest accepted height and width that hold a picture of this size."""
        if self.square:
            height = width = max(height, width)
        rows, columns = (max(side, self.minimum) for side in (height, width))
        return -(-rows // self.multiple) * self.multiple, -(
            -columns // self.multiple
        ) * self.multiple


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

    steps: int
    """Unrolled time steps."""
    precision: Precision
    """Arithmetic inside the graph."""
    receptive_radius: int
    """LR pixels to each side that an output pixel depends on: the halo of exact tiling."""
    config: str
    """Shape of the network as JSON: a `agsr.model.generator.GeneratorConfig`."""
    weights_hash: str
    """`agsr.model.checkpoint.Checkpoint.weights_hash` of the exported weights."""
    version: str
    """Version of agsr that wrote the file."""
    scale: int = SCALE
    """Upscaling factor."""

    def to_properties(self) -> dict[str, str]:
        """Return the key-value pairs for ONNX ``metadata_props``."""
        return {PREFIX + name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], source: str) -> ModelMetadata:
        """Read the properties of an ONNX file.

        Args:
            properties: All metadata properties of the file.
            source: Name of the file, for messages.

        Raises:
            ModelError: A property is missing, invalid, or not supported by this version.
        """
        names = [field.name for field in fields(cls)]
        missing = [PREFIX + name for name in names if PREFIX + name not in properties]
        if missing:
            raise ModelError(
                f"{source}: not exported by agsr: {', '.join(missing)} missing; make one with: "
                "agsr export"
            )
        text = {name: properties[PREFIX + name] for name in names}
        try:
            numbers = {name: int(text[name]) for name in ("steps", "receptive_radius", "scale")}
        except ValueError as error:
            raise ModelError(f"{source}: invalid metadata: {in_words(error)}") from None
        if not 1 <= numbers["steps"] <= MAX_STEPS or numbers["receptive_radius"] < 1:
            raise ModelError(
                f"{source}: {numbers['steps']} steps, receptive radius "
                f"{numbers['receptive_radius']}: out of range"
            )
        if not 1 <= numbers["scale"] <= MAX_FOREIGN_SCALE or text["precision"] not in PRECISIONS:
            raise ModelError(
                f"{source}: scale {text['scale']}, precision {text['precision']}; this version "
                f"runs scale 1 to {MAX_FOREIGN_SCALE}, precision {' or '.join(PRECISIONS)}"
            )
        return cls(**{**text, **numbers})  # type: ignore[arg-type]  # checked just above


def format_steps(steps: int) -> str:
    """Format a number of steps.

    >>> format_steps(1), format_steps(4)
    ('1 step', '4 steps')
    """
    return f"{steps} step{'s' * (steps > 1)}"
