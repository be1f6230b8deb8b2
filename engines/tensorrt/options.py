"""How an engine is built: optimization profiles, options, and the report of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agsr.contract import ModelMetadata
from agsr.engines.tensorrt.precision_check import PRODUCTS
from agsr.errors import BuildRequestError


@dataclass(frozen=True)
class Profile:
    """Sizes that an engine accepts, and the one it is optimized for.

    Each is ``(batch, height, width)`` in LR pixels.

    >>> profile = Profile((1, 16, 16), (1, 180, 320), (4, 540, 960))
    >>> profile.holds((2, 100, 100)), profile.holds((1, 8, 8))
    (True, False)
    """

    smallest: tuple[int, int, int] = (1, 16, 16)
    best: tuple[int, int, int] = (1, 180, 320)
    largest: tuple[int, int, int] = (1, 540, 960)

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.smallest, self.best, self.largest, strict=True):
            if not 1 <= low <= middle <= high:
                raise BuildRequestError(
                    f"{self} (batch x height x width): expected min ≤ opt ≤ max, from 1"
                )

    def __str__(self) -> str:
        return " ≤ ".join("x".join(map(str, s)) for s in (self.smallest, self.best, self.largest))

    def holds(self, shape: Sequence[int]) -> bool:
        """Return True if a ``(batch, height, width)`` is within the limits."""
        limits = zip(self.smallest, shape, self.largest, strict=True)
        return all(low <= value <= high for low, value, high in limits)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build an engine. All of it is part of the engine's identity in the cache.

    >>> BuildOptions(profiles=(Profile(largest=(4, 540, 960)),), level=3).targets
    ()
    """

    profiles: tuple[Profile, ...] = (Profile(),)
    """Optimization profiles, at least one."""
    workspace: int | None = None
    """Bytes that layers may use as scratch memory; None leaves it to TensorRT."""
    level: int | None = None
    """Builder optimization level, 0 (fast build) to 5 (fast engine); None leaves it to TensorRT."""
    version_compatible: bool = False
    """Whether later versions of TensorRT can run the engine; TensorRT only. Such an engine contains
    host code."""
    hardware_compatible: bool = False
    """Whether later generations of GPU can run the engine; TensorRT only."""
    targets: tuple[str, ...] = ()
    """GPU generations like ``"sm89"``; TensorRT-RTX only. Empty means the current GPU."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Description of a built engine."""

    metadata: ModelMetadata
    """Metadata of the ONNX file."""
    flavour: str
    """``"tensorrt"`` or ``"tensorrt-rtx"``."""
    version: str
    """TensorRT's version."""
    layers: dict[str, dict[str, int]]
    """Number of parsed layers by kind and output type."""
    size: int
    """Bytes of the engine."""
    built: dict[str, int] = field(default_factory=dict)
    """Number of convolutions by type in the built engine, from TensorRT's inspector; empty if the
    engine is for another GPU, or the inspector reports none."""
    options: BuildOptions = field(default_factory=BuildOptions)
    """Options it was built with."""
    tf32: bool = False
    """Whether float32 layers may multiply in TF32."""

    def products(self) -> dict[str, int]:
        """Count the multiplying layers by type."""
        count: Counter[str] = Counter()
        for kind in PRODUCTS:
            count.update(self.layers.get(kind, {}))
        return dict(count)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return asdict(self)
