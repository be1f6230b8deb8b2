"""The load script, small, against a server with a stub network; it finds what it is for."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image
from serving import Server, wait_for

sys.path.insert(0, str(ROOT / "scripts"))

import load_server
from load_server import KINDS, Answer, Load

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


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> Load:
    """A load whose exchanges get these answers, one after the other."""
    left = iter(answers)

    async def exchange(*_: object, **__: object) -> Answer:
        return next(left)

    monkeypatch.setattr(load_server, "exchange", exchange)
    monkeypatch.setattr(load_server, "SIZES", SIZES)
    return Load(0, load_server.pictures())


def _result(width: int, height: int) -> Answer:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return Answer(200, {}, stream.getvalue())


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    load = _answers(monkeypatch, Answer(429, {}, b""), _result(32, 32))
    asyncio.run(load_server.client(load, iter(["picture of 24x16"])))
    assert (load.busy, load.wrong, load.outcomes["picture of 24x16"]) == (1, [], 1)


QUEUED = Answer(202, {}, b'{"links": {"self": "/v1/jobs/1"}}')
DONE = Answer(200, {}, b"event: running\ndata: {}\n\nevent: done\ndata: {}\n\n")
CUT = Answer(200, {}, b"event: running\ndata: {}\n\n")
LOST = Answer(0, {}, b"")
REMOVED = Answer(204, {}, b"")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((DONE, _result(64, 32), REMOVED), None),
        ((LOST, _result(64, 32), REMOVED), "(0, 200, 204); expected (200, 200, 204)"),
        ((DONE, LOST, REMOVED), "(200, 0, 204); expected"),
        ((DONE, _result(64, 32), LOST), "(200, 200, 0); expected"),
        ((CUT, _result(64, 32), REMOVED), "the last event is b'running"),
        ((DONE, _result(8, 8), REMOVED), "the result has (8, 8) pixels"),
        ((DONE, Answer(200, {}, b"half"), REMOVED), "cannot identify image file"),
    ],
)
def test_jobs_need_all_their_answers(
    answers: tuple[Answer, ...], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = _answers(monkeypatch, QUEUED, *answers)
    asyncio.run(load_server.client(load, iter(["job: post, events, result, delete"])))
    assert (said in load.wrong[0]) if said else (load.wrong == [])
