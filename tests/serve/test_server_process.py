"""A server in a process: signals, clients that go away, slow headers, and its command."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from command_line import agsr, agsr_process
from conftest import ROOT
from serving import Server, picture, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "spool")
    yield running
    running.kill()


def _upload(path: str, content: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def test_clients_that_go_away_and_slow_ones_cost_nothing_and_sigterm_finishes(
    server: Server,
) -> None:
    """One process for all of it, since each takes a second to start."""
    # A client that goes away cancels its work: 256 tiles would take five seconds.
    cancelled = 'agsr_jobs_total{outcome="cancelled"}'
    client = server.connect(_upload("/v1/upscale", picture(128, 128)))
    wait_for(lambda: server.metric("agsr_queue_running") == 1)
    client.close()
    wait_for(lambda: server.metric(cancelled) == 1)
    wait_for(lambda: server.metric("agsr_queue_running") == 0)
    # So does one that goes away while its upload arrives.
    client = server.connect(_upload("/v1/upscale", bytes(1000))[:-500])
    wait_for(lambda: server.metric("agsr_queue_waiting") == 1)
    client.close()
    wait_for(lambda: server.metric("agsr_queue_waiting") == 0)
    # Headers that do not end, or are too long, close the connection.
    with server.connect(b"GET /healthz HTTP/1.1\r\nHost: local") as slow:
        assert slow.recv(100) == b""
    with server.connect(b"GET / HTTP/1.1\r\nX: " + bytes(20_000)) as long:
        assert b" 400 " in long.recv(100)
    assert [path for path in server.spool.rglob("*") if path.is_file()] == []

    # SIGTERM: what runs is finished, and its result can still be fetched.
    at_once = server.connect(_upload("/v1/upscale", picture(96, 96)))
    wait_for(lambda: server.metric("agsr_queue_running") == 1)
    job = server.request("POST", "v1/jobs", content=picture()).json()
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.request("GET", "readyz").status_code == 503)
    refused = server.request("POST", "v1/upscale", content=picture())
    assert refused.json()["code"] == "stopping"
    state = server.request("GET", job["links"]["self"].lstrip("/")).json()["state"]
    assert state == "cancelled"  # it waited
    assert b" 200 OK" in at_once.recv(1000)
    at_once.close()
    _, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert "Traceback" not in errors
    assert list(server.spool.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_signal_cancels_and_leftovers_of_a_killed_server_are_removed(
    tmp_path: Path,
) -> None:
    first = Server(tmp_path / "spool")
    job, waiting = (first.request("POST", "v1/jobs", content=picture(128, 128)) for _ in range(2))
    wait_for(lambda: first.metric("agsr_queue_running") == 1)
    (left,) = first.spool.iterdir()
    first.kill()
    assert left.exists()
    second = Server(tmp_path / "spool")
    assert not left.exists()
    for lost in (job, waiting):
        answer = second.request("GET", lost.headers["location"].lstrip("/"))
        assert (answer.status_code, answer.json()["code"]) == (404, "no_job")
    client = second.connect(_upload("/v1/upscale", picture(128, 128)))
    wait_for(lambda: second.metric("agsr_queue_running") == 1)
    second.process.send_signal(signal.SIGINT)
    wait_for(lambda: second.request("GET", "readyz").status_code == 503)
    second.process.send_signal(signal.SIGINT)
    assert b" 503 " in client.recv(1000)  # it did not wait for 256 tiles
    client.close()
    _, errors = second.process.communicate(timeout=60)
    assert (second.process.returncode, errors) == (0, "")
    assert list(second.spool.iterdir()) == []


def test_the_command_serves_a_shipped_network(tmp_path: Path) -> None:
    options = ["--port", "0", "--steps", "1", "-b", "ort", "--no-ui", "--spool", str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "AGSR_TOKEN": "sesame"}
    with subprocess.Popen(
        [sys.executable, "-m", "agsr", "serve", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        address = process.stdout.readline().strip()
        wait_for(lambda: httpx2.get(f"{address}readyz").status_code == 200)
        headers = {"Authorization": "Bearer sesame"}
        answer = httpx2.post(f"{address}v1/upscale?scale=2", content=picture(), headers=headers)
        assert answer.status_code == 200
        assert httpx2.get(address).status_code == 404
        assert httpx2.get(f"{address}v1/models").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-w", "nosuch"], "no weights named 'nosuch'"),
        (["--offer", "nosuch"], "no weights named 'nosuch'"),
        (["--root-path", "x"], "begin with '/'"),
        (["--queue", "-1"], "--queue"),
        (["--border", "wrap", "--halo", "0"], "--halo 0 reads nothing"),
    ],
)
def test_wrong_options_are_rejected_before_it_listens(options: list[str], said: str) -> None:
    result = agsr("serve", *options)
    assert result.exit_code == 2
    assert said in result.output


def test_an_address_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = agsr_process("serve", "--port", port, "--spool", str(tmp_path), cwd=tmp_path)
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


def test_infer_loads_nothing_of_the_server(tmp_path: Path) -> None:
    program = """
import sys
from agsr.cli import main
try:
    main()
finally:
    loaded = {name.partition(".")[0] for name in sys.modules} | set(sys.modules)
    print(sorted(loaded & {"starlette", "uvicorn", "asyncio", "agsr.serve", "prometheus_client"}))
"""
    (tmp_path / "a.png").write_bytes(picture())
    result = agsr_process("infer", "-n", "a.png", cwd=tmp_path, program=program)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
