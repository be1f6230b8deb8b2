"""What strangers may send to a server's socket, and files that are damaged in ways found outside.

`test_guard` has what needs no process: names, tokens, limits, paths.
"""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT
from serving import Server, picture, serving, wait_for

from agsr.video.formats import is_video

PATH = re.compile(rb"/(tmp|home|root|usr|work|etc|var)/|\.agsr-|Traceback|site-packages|\.py\b")
POST = b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(
        tmp_path_factory.mktemp("spool"), max_bytes=100_000, body_grace=1.0, body_rate=1_000_000
    )
    yield running
    running.kill()


def _answer(connection: socket.socket) -> bytes:
    """What a server sends until it closes the connection; empty if it resets it."""
    received = b""
    try:
        while piece := connection.recv(1 << 16):
            received += piece
    except ConnectionError:
        pass
    return received


REQUESTS = {
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "another host, forwarded": b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n"
    b"X-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\nConnection: close\r\n\r\n",
    "a host before the path": b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "a proxy's method": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "an echo": b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "another version": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    "a null in the path": b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    + b"X: y\r\n" * 4000
    + b"\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 60_000,
    "a long path": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "a folded header": b"GET /nowhere HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n"
    b" evil.example\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a huge length": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no number as a chunk's length": CHUNKED + b"zz\r\n\r\n",
    "a huge chunk": CHUNKED + b"fffffffffffffffffffff\r\n",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_malformed_requests_are_rejected(server: Server, name: str) -> None:
    with server.connect(REQUESTS[name]) as client:
        answer = _answer(client)
    if answer:
        status = int(answer.split()[1])
        assert 400 <= status < 500 or status in (501, 505), answer
    assert not PATH.search(answer)
    assert server.request("GET", "healthz").status_code == 200


def test_bodies_without_an_end_are_cut(server: Server) -> None:
    with server.connect(CHUNKED) as client:
        end = time.monotonic() + 60
        with suppress(ConnectionError):  # soon: the rest is not read for long
            while time.monotonic() < end:
                client.sendall(b"2000\r\n" + bytes(0x2000) + b"\r\n")
        assert time.monotonic() < end
    began = time.monotonic()
    with server.connect(CHUNKED) as client:  # slowly: one byte after the other
        client.setblocking(False)
        answer = b""
        while not answer and time.monotonic() < began + 60:
            with suppress(BlockingIOError, ConnectionError):
                client.sendall(b"1\r\nx\r\n")
            time.sleep(0.05)
            with suppress(BlockingIOError):
                answer = client.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 408 ")
    wait_for(lambda: server.metric("agsr_queue_waiting") == 0)
    assert [path for path in server.spool.rglob("*") if path.is_file()] == []


def test_a_request_in_a_body_is_not_answered(server: Server) -> None:
    """Both kinds of length: whatever counts, nothing within the body is a request."""
    inner = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with server.connect(POST + head + b"0\r\n\r\n" + inner) as client:
        answer = _answer(client)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert b"agsr_requests" not in answer


def test_many_idle_connections_leave_room_for_others(server: Server) -> None:
    idle = [server.connect(b"") for _ in range(100)]
    try:
        answer = server.request("POST", "v1/upscale", content=picture())
        assert answer.status_code == 200
    finally:
        for connection in idle:
            connection.close()


def _damaged() -> Iterator[tuple[str, bytes]]:
    """Names and contents: what fuzzing found, pictures that are cut or altered, and files from
    outside where `AGSR_DATA` has some."""
    folders = [ROOT / "tests" / "faults", Path(os.environ.get("AGSR_DATA", "nowhere")) / "faults"]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path.name, path.read_bytes()
    chance = random.Random(0)
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "TGA"):
        content = bytearray(picture(form=form))
        yield f"cut.{form.lower()}", bytes(content[: len(content) * 2 // 3])
        for number in range(4):
            content[chance.randrange(len(content) // (1 + number % 2))] ^= 1 << number
            yield f"altered.{form.lower()}", bytes(content)


def test_damaged_files_cost_one_answer_each(tmp_path: Path) -> None:
    files = list(_damaged())
    with serving(tmp_path / "spool", running={}, max_pixels=1 << 18) as client:
        for name, content in files:
            route = "jobs" if is_video(Path(name).suffix) else "upscale"
            answer = client.post(f"/v1/{route}", params={"name": name}, content=content)
            assert answer.status_code in (200, 202, 400, 413, 415, 422, 429), (name, answer.text)
            if answer.status_code == 202:
                client.get(answer.json()["links"]["events"])
                answer = client.get(answer.json()["links"]["self"])
                assert (answer.json()["problem"] or {}).get("status") != 500, name
            if answer.headers["content-type"].endswith("json"):
                assert not PATH.search(answer.content), (name, answer.text)
        assert client.get("/healthz").status_code == 200
