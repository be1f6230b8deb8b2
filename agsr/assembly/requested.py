"""Files of weights that are asked for: one weights file, or two that are mixed.

Data flow: `agsr.pretrained` resolves names to a `Source` → `onnx_file` or `checkpoint_file` → a
file in the user's cache (`agsr.assembly.cached`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agsr.contract import Precision
from agsr.errors import UnknownWeightsError
from agsr.system.file_kind import WEIGHTS_SUFFIXES

_BLEND = re.compile(r"(.+):((?:[A-Za-z]:[\\/])?[^:]+):([^:/\\]+)")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Blend:
    """Weights between two others, written ``FIRST:SECOND:SHARE``."""

    first: str
    """Weights at a share of 0: a shipped name, or the path of a ``.safetensors`` file."""
    second: str
    """Weights at a share of 1, trained on from the first."""
    share: float
    """Share of the second, 0 to 1."""

    @classmethod
    def parse(cls, text: str) -> Blend | None:
        """Parse a blend; None if the text is a name or path, which may have colons, too.

        Raises:
            UnknownWeightsError: The share is not a number from 0 to 1, or an end is a blend.

        >>> Blend.parse("psnr:gan:0.3"), Blend.parse("C:/models/a.onnx")
        (Blend(first='psnr', second='gan', share=0.3), None)
        """
        match = _BLEND.fullmatch(text) if text.count(":") > 1 else None
        # os.path answers False for names that are too long
        if match is None or text.endswith(WEIGHTS_SUFFIXES) or os.path.isfile(text):  # noqa: PTH113
            return None
        try:
            share = float(match[3])
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise UnknownWeightsError(
                f"{text}: the share is '{match[3]}'; expected FIRST:SECOND:SHARE with a share from "
                "0 to 1, like psnr:gan:0.3"
            )
        if cls.parse(match[1]) is not None:
            raise UnknownWeightsError(
                f"{text}: {match[1]} is a blend, which can't be an end of another; expected two "
                "shipped names or .safetensors files"
            )
        return cls(match[1], match[2], share)

    def check_ends(self) -> None:
        """Reject weights that can't be blended, by their names.

        Raises:
            UnknownWeightsError: One is a file of another kind.
        """
        for end in (self.first, self.second):
            if end.endswith(WEIGHTS_SUFFIXES) and not end.endswith(".safetensors"):
                raise UnknownWeightsError(
                    f"{end} can't be blended; expected shipped names, or .safetensors files of "
                    "agsr train"
                )

    def __str__(self) -> str:
        return f"{self.first}:{self.second}:{self.share:g}"

    @property
    def name(self) -> str:
        """Name for files.

        >>> Blend("psnr", "runs/sharp.safetensors", 0.25).name
        'psnr-sharp-0.25'
        """
        return f"{Path(self.first).stem[:50]}-{Path(self.second).stem[:50]}-{self.share:g}"


@dataclass(frozen=True)
class Source:
    """Weights files, and how they are mixed."""

    files: tuple[Path, ...]
    """One ``.safetensors`` file, or two of networks of one shape."""
    hashes: tuple[str, ...]
    """SHA-256 of each."""
    share: float = 0
    """Share of the second."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the weights depend on, for JSON."""
        return {"weights": self.hashes, "share": self.share}


def onnx_file(
    source: Source,
    name: str,
    steps: int,
    precision: Precision,
    *,
    scales: Mapping[str, float] | None = None,
    version: str = "",
    expected: str = "",
) -> Path:
    """Return an ONNX file of weights from the cache, or write it there.

    Args:
        source: The weights.
        name: Name of the file, for the user.
        steps: Time steps.
        precision: Arithmetic inside the graph.
        scales: For int8: one 8-bit step of each value of the graph.
        version: Version of agsr in the metadata; empty means this one.
        expected: SHA-256 of the file; empty if it isn't known.

    Raises:
        CheckpointError: A weights file is damaged, or the networks differ in shape.
        UnknownWeightsError: Only torch knows the network.
        MissingDependencyError: protobuf is not installed.
    """
    from agsr._version import __version__
    from agsr.assembly.cached import assembled_file

    version = version or __version__
    of_values = None if scales is None else sorted(scales.items())
    facts = {**source.facts, "steps": steps, "precision": precision, "scales": of_values}

    def make() -> bytes:
        from agsr.assembly.assemble import assemble

        measure = None if scales is None else RecordedScales(scales)
        content = assemble(_weights(source), steps, precision, measure=measure, version=version)
        if expected and hashlib.sha256(content).hexdigest() != expected:
            _log.warning("%s differs from the file that was measured for the release", name)
        return content

    return assembled_file(name, {**facts, "version": version, "agsr": __version__}, make)


def checkpoint_file(source: Source, name: str) -> Path:
    """Return a weights file of mixed weights from the cache, or write it there.

    Raises:
        CheckpointError: A weights file is damaged, or the networks differ in shape.
    """
    from agsr.assembly.cached import assembled_file

    def make() -> bytes:
        from agsr.assembly.weights import read_generator, to_safetensors

        ends = [read_generator(path).hash for path in source.files]
        shares = (1 - source.share, source.share)
        record = {"blend": dict(zip(ends, shares, strict=True))}
        return to_safetensors(_weights(source), record)

    return assembled_file(f"{name}.safetensors", source.facts, make)


def _weights(source: Source) -> Any:
    from agsr.assembly.weights import blend, read_generator

    read = [read_generator(path) for path in source.files]
    return read[0] if len(read) == 1 else blend(read[0], read[1], source.share)


def step_scales(by_steps: Mapping[str, Mapping[str, float]], steps: int) -> dict[str, float]:
    """Return the scales of a step count: its own, and those it shares with larger ones.

    >>> step_scales({"2": {"a": 1, "b": 2}, "1": {"b": 3}}, 1)
    {'a': 1, 'b': 3}
    """
    scales: dict[str, float] = {}
    for number in sorted(map(int, by_steps), reverse=True):
        if number >= steps:
            scales |= by_steps[str(number)]
    return scales


class RecordedScales:
    """Ranges of values that were measured before; see `agsr.assembly.assemble.Measure`.

    Args:
        scales: One 8-bit step of each value.
    """

    def __init__(self, scales: Mapping[str, float]) -> None:
        self._scales = scales

    def __call__(self, _: Any, names: Sequence[str]) -> dict[str, float]:
        """Return the largest magnitudes of values by their names."""
        from agsr.assembly.quantize import LARGEST

        return {name: self._scales[name] * LARGEST for name in names}
