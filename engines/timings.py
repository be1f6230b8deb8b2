"""How long each backend takes on this machine, kept by ``agsr doctor --measure`` for ``auto``.

One small JSON file in the user's cache folder. It is believed only while the processor, the
versions and the shipped weights are those that were measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from agsr._version import __version__
from agsr.pretrained import WEIGHTS_FOLDER
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder
from agsr.system.cpu import features, processor, thread_count

FORMAT = "agsr-timings-1"
"""Value of the ``format`` entry."""

_RUNTIMES = (
    *("onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx-cu13", "torch"),
)


@dataclass(frozen=True, kw_only=True)
class Time:
    """What a backend takes, seconds."""

    start: float
    """From nothing but Python to a loaded network that has run once, less that run."""
    per_megapixel: float
    """Per million LR pixels."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What was measured on a machine."""

    times: Mapping[str, Time]
    """By place and precision, like ``ort:cpu fp32``."""
    measured: str
    """Date."""
    identity: str
    """Of the machine, the versions and the weights; see `this_machine`."""

    def estimate(self, name: str, work: int | None) -> float:
        """Seconds for so many LR pixels; None means many, where the start does not matter.

        What was not measured takes for ever.
        """
        time = self.times.get(name)
        if time is None:
            return math.inf
        return time.per_megapixel if work is None else time.start + time.per_megapixel * work / 1e6

    def keep(self) -> Path:
        """Write them where `kept` finds them.

        Raises:
            OSError: The folder can't be written.
        """
        path = timings_file()
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1))
        return path

    @classmethod
    def kept(cls) -> Timings | None:
        """Those of this machine, if they are kept and nothing has changed since."""
        try:
            content = json.loads(timings_file().read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["identity"] != this_machine():
                return None
            times = {str(name): Time(**time) for name, time in content["times"].items()}
            usable = all(0 <= t.start < 1e6 and 0 < t.per_megapixel < 1e6 for t in times.values())
            found = cls(
                times=times, measured=str(content["measured"]), identity=content["identity"]
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found if usable and times else None


def timings_file() -> Path:
    """Where they are kept."""
    return cache_folder() / "timings.json"


def this_machine() -> str:
    """Hash of what the times depend on."""
    manifest = (WEIGHTS_FOLDER / "manifest.json").read_bytes()
    facts = {
        "processor": processor(),
        "features": features(),
        "cores": thread_count(None),
        "agsr": __version__,
        "runtimes": {name: _version(name) for name in _RUNTIMES},
        "weights": hashlib.sha256(manifest).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _version(distribution: str) -> str:
    from importlib import metadata  # slow to load, and needed where times were measured only

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
