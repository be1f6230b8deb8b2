"""The networks by name: what ``agsr train --model`` and a weights file's header can say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from agsr.model.base import Network, NetworkConfig
from agsr.model.baselines import Srcnn, SrResNet
from agsr.model.generator import Generator

NETWORKS: dict[str, type[Network]] = {kind.name: kind for kind in (Generator, Srcnn, SrResNet)}
"""Network classes by name."""

DEFAULT_NETWORK = Generator.name
"""The network where nothing else is asked for."""


def make_config(name: str, values: Mapping[str, Any] | None = None) -> NetworkConfig:
    """The configuration of a network.

    Args:
        name: A key of `NETWORKS`.
        values: Fields that differ from the defaults.

    Raises:
        ValueError: No such network or field, or a value out of range.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network named '{name}'; known: {', '.join(NETWORKS)}")
    kind: Any = NETWORKS[name].config_type
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values or {}) - set(known))
    if unknown:
        raise ValueError(f"{name} has no {', '.join(unknown)}; known: {', '.join(known)}")
    config: NetworkConfig = kind(**(values or {}))
    return config


def build(name: str, config: NetworkConfig) -> Network:
    """A network with fresh weights."""
    make: Any = NETWORKS[name]
    network: Network = make(config)
    return network
