"""Load on a real ``agsr serve`` process: the figures of docs/serve.md.

    python scripts/load_server.py                            # 64 clients, 2,000 requests
    python scripts/load_server.py --requests 100 --clients 8

The script starts the server on 127.0.0.1, sends requests of each of `KINDS`, stops the server with
SIGTERM, and prints a table. It exits with 1 if an answer is an error other than 429, if memory grew
by more than `--growth` MiB between a quarter of the requests and all of them, or if time ran out.
Further options go to ``agsr serve``.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

BUSY = 429
GONE = "closed without an answer"
SIZES = {"small": (24, 16), "middle": (60, 40), "large": (150, 100)}


@dataclass
class Load:
    """What the clients share."""

    port: int
    pictures: dict[str, bytes]
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Latencies by kind: from the connection that was accepted to the last byte."""
    outcomes: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    """Answers with 429; the client tries again."""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the status is 0 if the connection was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes


def head(method: str, path: str, length: int) -> bytes:
    """Return the header of a request."""
    lines = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}")
    return "\r\n".join((*lines, "Connection: close", "", "")).encode()


async def exchange(
    load: Load, content: bytes, slow: bool = False, half_closed: bool = False
) -> Answer:
    """Send a request on a new connection, and read the answer to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port, limit=1 << 14)
    try:
        writer.write(content)
        await writer.drain()
        if half_closed:
            writer.write_eof()
        received = bytearray()
        while piece := await reader.read(1 << 12 if slow else 1 << 16):
            received += piece
            if slow:
                await asyncio.sleep(0.002)
    except ConnectionError:
        received = bytearray()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return parsed(bytes(received))


def parsed(received: bytes) -> Answer:
    """Return an answer from its bytes."""
    if not received:
        return Answer(0, {}, b"")
    top, _, body = received.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return Answer(int(first.split()[1]), headers, body)


def upscale(load: Load, size: str) -> bytes:
    """Return a request for a picture."""
    picture = load.pictures[size]
    return head("POST", f"/v1/upscale?name={size}.png", len(picture)) + picture


async def picture(load: Load, size: str, **how: bool) -> Answer:
    """Upscale a picture, and check that the whole result arrived."""
    answer = await exchange(load, upscale(load, size), **how)
    if answer.status == 200:
        check(answer, size)
    return answer


def check(answer: Answer, size: str) -> None:
    """Check that the whole result of a picture arrived.

    Raises ValueError for another size, and `OSError` for damage.
    """
    with Image.open(io.BytesIO(answer.body)) as result:
        result.load()
        width, height = SIZES[size]
        if result.size != (4 * width, 4 * height):
            raise ValueError(f"{size}: the result has {result.size} pixels")


async def half_closed(load: Load) -> Answer:
    """Send a whole request and close the sending side: the server may answer, or close."""
    answer = await exchange(load, upscale(load, "small"), half_closed=True)
    return answer if answer.status else Answer(200, {}, b"")


async def aborted(load: Load) -> Answer:
    """Go away in the middle of an upload."""
    content = upscale(load, "large")
    _, writer = await asyncio.open_connection("127.0.0.1", load.port)
    writer.write(content[: len(content) // 2])
    with suppress(ConnectionError):
        await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return Answer(200, {}, b"")


async def left(load: Load) -> Answer:
    """Go away while the picture is upscaled."""
    _, writer = await asyncio.open_connection("127.0.0.1", load.port)
    writer.write(upscale(load, "large"))
    with suppress(ConnectionError):
        await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return Answer(200, {}, b"")


async def job(load: Load) -> Answer:
    """Queue a job, follow its events to the last, fetch its whole result, and remove it."""
    content = load.pictures["middle"]
    queued = await exchange(load, head("POST", "/v1/jobs", len(content)) + content)
    if queued.status != 202:
        return queued
    path = json.loads(queued.body)["links"]["self"]
    events = await exchange(load, head("GET", f"{path}/events", 0))
    result = await exchange(load, head("GET", f"{path}/result", 0))
    removed = await exchange(load, head("DELETE", path, 0))
    found = (events.status, result.status, removed.status)
    if found != (200, 200, 204):
        raise ValueError(f"events, result, removal: {found}; expected (200, 200, 204)")
    if not (last := events.body.rpartition(b"event: ")[2]).startswith(b"done\n"):
        raise ValueError(f"the last event is {last!r}; expected done")
    check(result, "middle")
    return result


KINDS: dict[str, tuple[int, Callable[[Load], Awaitable[Answer]]]] = {
    "picture of 24x16": (40, lambda load: picture(load, "small")),
    "picture of 60x40": (20, lambda load: picture(load, "middle")),
    "picture of 150x100": (8, lambda load: picture(load, "large")),
    "slow reader, 150x100": (8, lambda load: picture(load, "large", slow=True)),
    "job: post, events, result, delete": (8, job),
    "half-closed connection": (6, half_closed),
    "aborted upload": (5, aborted),
    "client that leaves": (5, left),
}
"""Share in percent and act of each kind of request."""


async def client(load: Load, kinds: Iterator[str]) -> None:
    """Send requests until there are no more; where the server is busy, try again."""
    for kind in kinds:
        answer = Answer(BUSY, {}, b"")
        while answer.status == BUSY:
            began = time.monotonic()
            try:
                answer = await KINDS[kind][1](load)
            except (OSError, ValueError) as error:
                load.wrong.append(f"{kind}: {error!r}")
                break
            if answer.status == BUSY:
                load.busy += 1
                await asyncio.sleep(load.chance.uniform(0.02, 0.3))
        load.seconds[kind].append(time.monotonic() - began)
        load.outcomes[kind] += 1
        if answer.status not in (200, BUSY):
            text = f"{answer.status} {answer.body[:200]!r}" if answer.status else GONE
            load.wrong.append(f"{kind}: {text}")


async def run(load: Load, requests: int, clients: int) -> None:
    """Send a number of requests by a number of clients."""
    names, shares = list(KINDS), [share for share, _ in KINDS.values()]
    kinds = iter(load.chance.choices(names, shares, k=requests))
    await asyncio.gather(*(client(load, kinds) for _ in range(clients)))


def pictures() -> dict[str, bytes]:
    """Return a PNG file of each of `SIZES`."""
    noise = np.random.default_rng(0)
    found = {}
    for name, (width, height) in SIZES.items():
        stream = io.BytesIO()
        pixels = noise.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        found[name] = stream.getvalue()
    return found


@contextmanager
def server(*options: str) -> Iterator[tuple[psutil.Process, str]]:
    """Run ``agsr serve``; yields its process and address when it is ready, and stops it."""
    with tempfile.TemporaryDirectory() as spool:
        command = [sys.executable, "-m", "agsr", "serve", "--port", "0", "--spool", spool]
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            address = process.stdout.readline().strip()
            wait_until_ready(address)
            yield psutil.Process(process.pid), address
            process.send_signal(signal.SIGTERM)
            status = process.wait(120)
        finally:
            process.kill()
        left_over = [path.name for path in Path(spool).iterdir()]
        if status or left_over:
            raise SystemExit(f"the server exited with {status} and left {left_over}")


def wait_until_ready(address: str) -> None:
    """Wait until a server has warmed up."""
    load = Load(int(address.rstrip("/").rpartition(":")[2]), {})
    end = time.monotonic() + 120
    while asyncio.run(exchange(load, head("GET", "/readyz", 0))).status != 200:
        if time.monotonic() > end:
            raise SystemExit("the server did not become ready in two minutes")
        time.sleep(0.1)


def report(load: Load, resident: dict[int, int], seconds: float) -> str:
    """Return the figures as Markdown."""
    lines = ["| request | number | p50 | p95 | p99 |", "|---|---|---|---|---|"]
    for kind in KINDS:
        if found := load.seconds[kind]:
            points = (f"{np.percentile(found, point):.2f} s" for point in (50, 95, 99))
            lines.append(f"| {kind} | {len(found)} | {' | '.join(points)} |")
    total = sum(load.outcomes.values())
    memory = ", ".join(f"{size >> 20} MiB after {count}" for count, size in resident.items())
    lines += ["", f"{total} requests in {seconds:.0f} s; {load.busy} answers with 429, each tried"]
    lines[-1] += f" again; {len(load.wrong)} errors. Resident memory of the server: {memory}."
    return "\n".join([*lines, *load.wrong[:20]])


def main() -> None:
    """Run the server and the clients, print the figures."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--requests", type=int, default=2000)
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--seconds", type=float, default=600, help="time limit")
    options.add_argument("--growth", type=int, default=48, help="MiB of memory")
    asked, served = options.parse_known_args()
    resident: dict[int, int] = {}
    with server("--steps", "1", "--no-ui", *served) as (process, address):
        load = Load(int(address.rstrip("/").rpartition(":")[2]), pictures())
        began = time.monotonic()
        for count in (asked.requests // 4, asked.requests):
            part = run(load, count - sum(load.outcomes.values()), asked.clients)
            asyncio.run(asyncio.wait_for(part, began + asked.seconds - time.monotonic()))
            resident[count] = process.memory_info().rss
        print(report(load, resident, time.monotonic() - began))
    before, after = resident.values()
    if load.wrong or after - before > asked.growth << 20:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
