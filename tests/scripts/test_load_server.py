"""The load script, small, against a server with a stub network; it finds what it is for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from serving import Server, wait_for

sys.path.insert(0, str(ROOT / "scripts"))

import load_server
from load_server import KINDS, Load

SIZES = {"small": (8, 8), "middle": (16, 8), "large": (24, 16)}
"""1, 2 and 6 tiles."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "spool")
    yield running
    running.kill()


@pytest.fixture
def load(server: Server, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr(load_server, "SIZES", SIZES)
    return Load(server.port, load_server.pictures())


def test_many_clients_of_all_kinds_get_no_error_and_leave_nothing(
    load: Load, server: Server
) -> None:
    asyncio.run(asyncio.wait_for(load_server.run(load, requests=80, clients=24), 60))
    assert load.wrong == []
    assert set(load.outcomes) == set(KINDS)
    assert load.busy  # 24 clients are more than a queue of 16 holds
    wait_for(lambda: server.metric("agsr_queue_running") + server.metric("agsr_queue_waiting") == 0)
    assert server.metric("agsr_disk_bytes") == 0
    assert [path for path in server.spool.rglob("*") if path.is_file()] == []
    shown = load_server.report(load, {80: 1 << 20}, 2.0)
    assert "80 requests in 2 s" in shown
    assert all(kind in shown for kind in KINDS)


def test_errors_and_lost_answers_are_counted(load: Load, server: Server) -> None:
    load.pictures["small"] = b"no picture"
    asyncio.run(load_server.client(load, iter(["picture of 24x16"])))
    assert load.wrong[0].startswith("picture of 24x16: 422 ")
    server.kill()
    asyncio.run(load_server.client(load, iter(["picture of 60x40"])))
    assert "refused" in load.wrong[1] or "Connect" in load.wrong[1]
