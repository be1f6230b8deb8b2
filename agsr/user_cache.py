"""Where files that can be made or fetched again are kept: one folder per user."""

from __future__ import annotations

import os
from pathlib import Path

from agsr.optional import Extra, require

CACHE_VARIABLE = "AGSR_CACHE"
"""Environment variable that names the cache folder."""


def cache_folder(*, extra: Extra, purpose: str) -> Path:
    """The folder that ``$AGSR_CACHE`` names, else the platform's; it may not exist yet.

    Args:
        extra: The extra that brings platformdirs to the caller.
        purpose: What the caller wants to do, for `agsr.optional.require`.

    Raises:
        MissingDependencyError: The variable is not set, and platformdirs is not installed.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    platformdirs = require("platformdirs", extra=extra, purpose=purpose)
    return Path(platformdirs.user_cache_dir("agsr", appauthor=False))
