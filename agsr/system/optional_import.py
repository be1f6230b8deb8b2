"""Imports of optional packages, with an error that gives the command to install them."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from agsr.errors import MissingDependencyError
from agsr.system.telemetry import import_without_telemetry

Extra = Literal[
    "cpu",
    "gpu",
    "rtx",
    "pycuda",
    "train",
    "bench",
    "heif",
    "video",
    "serve",
    "models",
    "triton",
    "cloud",
    "cluster",
    "dev",
]
"""Names of the extras in ``pyproject.toml``."""


def require(module: str, *, extra: Extra, purpose: str) -> ModuleType:
    """Import ``module``, or raise an error with its purpose and the command to install it.

    Runtimes with telemetry are imported by `agsr.system.telemetry`, with telemetry off.

    Args:
        module: Import name, for example ``"onnxruntime"``.
        extra: The extra of this package that installs it.
        purpose: Feature that needs the module, as the subject of a sentence.

    Raises:
        MissingDependencyError: The module itself, not one it imports, is missing.

    >>> require("missing_module", extra="bench", purpose="Plotting")
    Traceback (most recent call last):
    agsr.errors.MissingDependencyError: Plotting needs the package 'missing_module', which ...
    """
    try:
        return import_without_telemetry(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package '{module}', which is not installed. "
            f"Install it with: {install_command(extra)}"
        ) from None


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for an installed package and a checkout.

    >>> install_command("train")
    "pip install 'agsr[train]' (in a checkout: '.[train]')"
    """
    return f"pip install 'agsr[{extra}]' (in a checkout: '.[{extra}]')"
