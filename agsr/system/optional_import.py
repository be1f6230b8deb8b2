"""Optional packages, imported through one helper that says how to get what is missing."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from agsr.errors import MissingDependencyError
from agsr.system.telemetry import load_quietly

Extra = Literal["cpu", "gpu", "rtx", "pycuda", "train", "bench", "heif", "video", "dev"]
"""Names of the extras in ``pyproject.toml``."""


def require(module: str, *, extra: Extra, purpose: str) -> ModuleType:
    """Import ``module``, or report what needs it and which extra brings it.

    Runtimes that report their use to their makers are loaded by `agsr.system.telemetry`, so they
    don't.

    Args:
        module: Import name, for example ``"onnxruntime"``.
        extra: The extra of this package that installs it.
        purpose: What the caller wanted to do, as a phrase that starts a sentence.

    Raises:
        MissingDependencyError: The module (not one it imports) is not installed.
    """
    try:
        return load_quietly(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package '{module}', which is not installed. "
            f"Install it with: {install_command(extra)}"
        ) from None


def install_command(extra: str) -> str:
    """The command that adds an extra, for an installed package and for a checkout."""
    return f"pip install 'agsr[{extra}]' (in a checkout: '.[{extra}]')"
