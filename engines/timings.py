"""Measured run times of each backend, written by ``agsr doctor --measure`` and read by ``auto``.

The times are one small JSON file in the user's cache folder. It is ignored once the processor, a
version or the shipped weights differ from those that were measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from agsr._version import __version__
from agsr.pretrained import WEIGHTS_FOLDER, sha256
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder
from agsr.system.cache_files import digest
from agsr.system.cpu import features, processor, thread_count

FORMAT = "agsr-timings-1"
"""Value of the ``format`` entry."""

_RUNTIMES = (
    *("onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx-cu13", "torch"),
)


@dataclass(frozen=True, kw_only=True)
class BackendTiming:
    """Start-up and run time of a backend, seconds."""

    start: float
    """From a bare Python process to a loaded network that has run once, minus that run."""
    per_megapixel: float
    """Per million LR pixels."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Run times measured on one machine."""

    times: Mapping[str, BackendTiming]
    """By place and precision, like ``ort:cpu fp32``."""
    measured: str
    """Date of the measurement."""
    identity: str
    """Hash of the machine, the versions and the weights; see `machine_identity`."""

    def estimate(self, name: str, work: int | None) -> float:
        """Return the seconds that a backend needs; infinity if it was not measured.

        Args:
            name: Key of `times`.
            work: LR pixels; None means so many that the start-up time does not matter.

        >>> timing = BackendTiming(start=2, per_megapixel=3)
        >>> timings = Timings(times={"ort:cpu fp32": timing}, measured="", identity="")
        >>> timings.estimate("ort:cpu fp32", 1_000_000), timings.estimate("trt fp16", None)
        (5.0, inf)
        """
        timing = self.times.get(name)
        if timing is None:
            return math.inf
        if work is None:
            return timing.per_megapixel
        return timing.start + timing.per_megapixel * work / 1e6

    def save(self) -> Path:
        """Write the times to `timings_file`, where `load` finds them.

        Raises:
            OSError: The folder can't be written.
        """
        path = timings_file()
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1))
        return path

    @classmethod
    def load(cls) -> Timings | None:
        """Read the times of this machine; None if there are none or they are out of date."""
        try:
            content = json.loads(timings_file().read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["identity"] != machine_identity():
                return None
            times = {str(n): BackendTiming(**timing) for n, timing in content["times"].items()}
            usable = all(0 <= t.start < 1e6 and 0 < t.per_megapixel < 1e6 for t in times.values())
            found = cls(
                times=times, measured=str(content["measured"]), identity=content["identity"]
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found if usable and times else None


def timings_file() -> Path:
    """Return the path of the JSON file."""
    return cache_folder() / "timings.json"


def machine_identity() -> str:
    """Return a hash of everything the times depend on."""
    facts = {
        "processor": processor(),
        "features": features(),
        "cores": thread_count(None),
        "agsr": __version__,
        "runtimes": {name: _version(name) for name in _RUNTIMES},
        "weights": sha256(WEIGHTS_FOLDER / "manifest.json"),
    }
    return digest(facts)


def _version(distribution: str) -> str:
    from importlib import metadata  # slow to import, and only needed if times were measured

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
