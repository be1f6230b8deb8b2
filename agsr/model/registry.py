"""The networks by name, as in ``agsr train --model`` and the header of a weights file."""

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
"""Name of the default network."""


def make_config(name: str, values: Mapping[str, Any] | None = None) -> NetworkConfig:
    """Make the configuration of a network.

    Args:
        name: A key of `NETWORKS`.
        values: Fields that differ from the defaults.

    Raises:
        ValueError: A network or field is unknown, or a value is out of range.

    >>> make_config("srcnn", {"width1": 8})
    SrcnnConfig(kernel1=9, kernel2=5, kernel3=5, width1=8, width2=32)
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
    """Make a network with random weights."""
    make: Any = NETWORKS[name]
    network: Network = make(config)
    return network
