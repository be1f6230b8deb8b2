"""The page of licences lists every package that an installation needs."""

from __future__ import annotations

import runpy
from importlib.metadata import version
from typing import Any

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "list_licences.py"))


def test_the_page_has_every_pinned_package(script: dict[str, Any]) -> None:
    page = script["PAGE"].read_text(encoding="utf-8").splitlines()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    rows = {row.split()[1]: row for row in script["rows"]()}
    pinned = {n: row for n, row in rows.items() if f"\n{n}=={version(n)}" in pins}
    assert len(pinned) > 30
    assert [row for row in pinned.values() if row not in page] == []


def test_no_package_of_the_wheel_itself_is_copyleft(script: dict[str, Any]) -> None:
    wheel = [row for row in script["rows"]() if row.endswith("| `agsr` |")]
    assert len(wheel) >= 9
    assert [row for row in wheel if "GPL" in row] == []
