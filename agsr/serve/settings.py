"""Settings of the server: from the options of ``agsr serve`` to every other module here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from agsr.contract import MAX_STEPS
from agsr.errors import ConfigurationError
from agsr.pretrained import DEFAULT_WEIGHTS, is_path, shipped_names

LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names of this computer."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of the server; the defaults suit one person on one computer."""

    weights: str = DEFAULT_WEIGHTS
    """Weights for requests that name none: a shipped name, or a file."""
    offered: tuple[str, ...] = ()
    """Further weights that requests may name; empty means all shipped ones, or none where a Triton
    server runs the networks."""
    running: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `agsr.engines.upscaler.Upscaler`: backend, steps, precision, tile, …"""
    host: str = "127.0.0.1"
    port: int = 8188
    """0 means any free port."""
    token: str | None = None
    """What clients must send as ``Authorization: Bearer``; None means that anyone may."""
    max_pixels: int = 1 << 26
    """Inputs with more pixels are rejected before they are decoded."""
    max_result_pixels: int = 1 << 30
    """Larger results are rejected before they are computed."""
    max_bytes: int = 200_000_000
    """Longer request bodies are rejected."""
    queue: int = 16
    """Requests that may wait, beside those that are running."""
    workers: int = 1
    """Files that are processed at the same time; they take turns at the network."""
    loaded: int = 2
    """Networks that stay loaded."""
    keep_minutes: float = 60
    """Time after which the result of a job is removed."""
    max_disk: int = 10_000_000_000
    """Bytes of uploads and results on the disk, together."""
    spool: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """Folder in which a private folder for uploads and results is created."""
    ui: bool = True
    """Whether to serve the page."""
    root_path: str = ""
    """Path under which a reverse proxy serves this server."""
    allow_hosts: tuple[str, ...] = ()
    """Further names in the ``Host`` header."""
    allow_origins: tuple[str, ...] = ()
    """Origins of other pages that may call the API (CORS)."""
    grace: float = 30
    """Seconds that running work may take after a signal, before it is cancelled."""
    body_grace: float = 20
    """Seconds that any request's body may take."""
    body_rate: int = 8192
    """Bytes per second of a body after `body_grace`."""
    header_seconds: float = 15
    """Seconds that the header of a request may take."""

    def __post_init__(self) -> None:
        if self.root_path and not self.root_path.startswith("/"):
            raise ValueError(f"root path is {self.root_path!r}; expected it to begin with '/'")

    @property
    def names(self) -> dict[str, str]:
        """The weights that requests may name, by the name of each; files are named by their stem.

        >>> ServeSettings(weights="gan", offered=("models/mine.onnx",)).names
        {'gan': 'gan', 'mine': 'models/mine.onnx'}
        """
        others = self.offered or (() if self.is_served else shipped_names())
        offered = (self.weights, *others)
        return {public_name(weights): weights for weights in dict.fromkeys(offered)}

    def running_for(self, weights: str) -> dict[str, Any]:
        """Return `running` for some of the weights that requests may name.

        ``hints``, and the ``steps`` and ``precision`` of files, are those of the server's own
        weights; shipped weights and their blends run with any number of steps up to the limit.

        >>> settings = ServeSettings(running={"steps": 2, "hints": "range=255"})
        >>> settings.running_for("gan"), settings.running_for("models/mine.onnx")
        ({'steps': 2}, {})
        """
        if weights == self.weights:
            return dict(self.running)
        unfit = {"hints"} if self._takes_threads(weights) else {"hints", "threads"}
        if is_path(weights) or self.is_served:
            unfit |= {"steps", "precision"}
        elif (self.running.get("steps") or 1) > MAX_STEPS:
            unfit.add("steps")
        return {name: value for name, value in self.running.items() if name not in unfit}

    def _takes_threads(self, weights: str) -> bool:
        """Whether the number of threads can be set where these weights run."""
        from agsr.engines.request import takes_threads

        return "threads" not in self.running or takes_threads(weights, self.running)

    @property
    def is_served(self) -> bool:
        """Whether a Triton server runs the networks."""
        from agsr.engines.request import is_served  # not loaded for --help

        return is_served(self.running.get("backend", "auto"), self.running.get("url"))

    def declared_scale(self, weights: str) -> int | None:
        """Return the scale of a network; None if only the loaded network shows it."""
        from agsr.engines.weights_file import declared_scale

        return None if self.is_served else declared_scale(weights)

    @property
    def default_name(self) -> str:
        """Name of the weights for requests that name none."""
        return public_name(self.weights)


def public_name(weights: str) -> str:
    """Return the name of weights without the folders that they lie in."""
    return Path(weights).stem if is_path(weights) else weights


_TYPES = {
    **{"int": int, "float": float, "str": str, "str | None": str, "bool": bool, "Path": Path},
    **{"tuple[str, ...]": tuple, "Mapping[str, Any]": dict},
}


def kinds_of(options: type[Any]) -> dict[str, type[Any]]:
    """Return the type of each field of a dataclass of options."""
    return {field.name: _TYPES[str(field.type)] for field in fields(options)}


def those_of(options: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that belong to a dataclass of options."""
    names = {field.name for field in fields(options)}
    return {name: value for name, value in found.items() if name in names}


def value_of(name: str, text: str, kind: type[Any]) -> Any:
    """Return the value of an option that is given as text.

    Raises:
        ConfigurationError: It can't be read.
    """
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return tuple(filter(None, text.split(","))) if kind is tuple else kind(text)
    except (ValueError, KeyError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigurationError(f"{name} is {text!r}; expected {expected}") from None
