"""Headless Chromium, for tests of pages as people see them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium. In CI its absence is a failure."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        assert "CI" not in os.environ, "CI must have chromium and chromedriver"
        pytest.skip("no chromium and chromedriver here")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking"
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*flags.split(), "disable-sync", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()
