"""Properties of other projects' networks, cached so that they are known before torch is loaded.

Data flow: `agsr.engines.community.loader` finds them once and caches them by path, size and time of
the file → names of results, `agsr models` and the check of cached exports.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agsr._version import __version__
from agsr.contract import MAX_FOREIGN_SCALE, TILINGS, SizeRule, Tiling
from agsr.system.atomic_file import complete_file
from agsr.system.cache_dir import cache_folder
from agsr.system.cache_files import digest, read_manifest

_FORMAT = 1
"""Version of an entry's format, beside those of agsr and spandrel; part of its name."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Properties of another project's network."""

    architecture: str
    """Name, as spandrel gives it: ``ESRGAN``, ``RealESRGAN Compact``, ``DAT``."""
    tags: tuple[str, ...]
    """Its size and variant: ``64nf``, ``23nb``."""
    scale: int
    """Output pixels per input pixel along each axis; 1 for networks that restore."""
    channels: int
    """3 for RGB, 1 for luma."""
    sizes: SizeRule
    """Sizes that it accepts."""
    tiling: Tiling
    """Whether pictures may be cut."""
    precisions: tuple[str, ...]
    """Arithmetic that its architecture supports: fp32, and fp16 or bf16."""
    sha256: str
    """SHA-256 of the file."""

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> NetworkFacts:
        """Rebuild facts from the JSON of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError, ValueError: They are incomplete or invalid.
        """
        rule = dict(entry["sizes"])
        fixed = rule.pop("fixed", None)
        sizes = SizeRule(**rule, fixed=None if fixed is None else (int(fixed[0]), int(fixed[1])))
        facts = cls(
            **{**entry, "sizes": sizes, "tags": tuple(entry["tags"])}
            | {"precisions": tuple(entry["precisions"])}
        )
        if facts.tiling not in TILINGS or not 1 <= facts.scale <= MAX_FOREIGN_SCALE:
            raise ValueError(f"tiling {facts.tiling}, scale {facts.scale}")
        return facts


def cached_facts(path: Path) -> NetworkFacts | None:
    """Return the properties of a file that was loaded before and hasn't changed since."""
    with suppress(OSError, KeyError, TypeError, ValueError):
        return NetworkFacts.from_dict(read_manifest(_entry(path)))
    return None


def cache_facts(path: Path, facts: NetworkFacts) -> None:
    """Cache the properties of a file, unless they are cached."""
    if cached_facts(path) == facts:
        return
    try:
        entry = _entry(path)
        entry.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(entry) as temporary:
            temporary.write_text(json.dumps(asdict(facts)))
    except OSError as error:
        _log.info("%s: its properties can't be cached: %s", path, error.strerror)


def _entry(path: Path) -> Path:
    state = path.stat()
    identity = {
        "path": str(path.resolve()),
        "size": state.st_size,
        "time": state.st_mtime_ns,
        "version": [_FORMAT, __version__, _spandrel_version()],
    }
    return cache_folder() / "models" / f"{digest(identity)[:32]}.json"


def _spandrel_version() -> str:
    from importlib import metadata  # slow to import, and only other projects' weights need it

    try:
        return metadata.version("spandrel")
    except metadata.PackageNotFoundError:
        return ""
