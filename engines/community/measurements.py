"""What was measured of networks whose receptive field and memory are unknown, cached as JSON files.

An entry is named by everything that its value depends on, so that a network in another precision,
or in a file for another size, is measured by itself, and each again by another version of agsr.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agsr._version import __version__
from agsr.backend import Backend, BackendInfo
from agsr.contract import SizeRule
from agsr.engines.places import RUNTIMES
from agsr.engines.tensorrt.api import MODULES
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder
from agsr.system.cache_files import digest, evict, read_manifest

MAX_ENTRIES = 1000
"""Files that the cache holds."""

VERSION = 2
"""Version of the measurements; part of an entry's name."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a measurement depends on."""

    weights_hash: str
    """SHA-256 of the weights; empty for a network without an identity, which is never cached."""
    precision: str = "fp32"
    """Arithmetic."""
    sizes: SizeRule = SizeRule()  # noqa: RUF009  # frozen
    """Sizes that the network accepts."""
    tile_align: int = 1
    """What tiles start at multiples of."""
    largest: tuple[int, int] | None = None
    """Largest height and width."""
    ensemble: int = 1
    """Turns and mirrorings that are averaged."""
    place: str = ""
    """Runtime, its version and device, for what depends on them; see `place_of`."""

    @classmethod
    def of(cls, backend: Backend, place: str = "") -> Subject:
        """Return the subject of a loaded network."""
        return cls(
            weights_hash=backend.info.weights_hash,
            precision=backend.info.precision,
            sizes=backend.sizes,
            tile_align=backend.tile_align,
            largest=backend.info.largest,
            ensemble=backend.info.ensemble,
            place=place,
        )

    @classmethod
    def of_file(cls, weights_hash: str, precision: str, sizes: SizeRule) -> Subject:
        """Return the subject of a file whose network isn't loaded."""
        return cls(
            weights_hash=weights_hash,
            precision=precision,
            sizes=sizes,
            tile_align=sizes.tile_align,
            largest=sizes.fixed,
        )


def place_of(info: BackendInfo) -> str:
    """Return runtime, its version and device of a loaded network."""
    return f"{info.name} {_version(info.name)} {info.device}"


def _version(runtime: str) -> str:
    """Return the version of a runtime, whose module is loaded; empty for one without a version."""
    names = [RUNTIMES[runtime].module] if runtime in RUNTIMES else []
    loaded = (sys.modules.get(name) for name in (MODULES.values() if runtime == "trt" else names))
    return next((str(getattr(module, "__version__", "")) for module in loaded if module), "")


def read(kind: str, subject: Subject) -> Mapping[str, Any]:
    """Return a cached measurement; empty if there is none."""
    path = _path(kind, subject)
    return {} if path is None else read_manifest(path)


def write(kind: str, subject: Subject, values: Mapping[str, Any]) -> None:
    """Cache a measurement; a cache that can't be written to is only logged."""
    path = _path(kind, subject)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps(values))
        evict(path.parent.glob("*.json"), MAX_ENTRIES)
    except OSError as error:
        _log.info("%s: can't be cached: %s", path, error.strerror)


def _path(kind: str, subject: Subject) -> Path | None:
    if not subject.weights_hash:
        return None
    facts = {**asdict(subject), "version": VERSION, "agsr": __version__}
    return cache_folder() / kind / f"{digest(facts)[:32]}.json"
