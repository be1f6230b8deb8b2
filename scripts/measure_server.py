"""What a request to ``agsr serve`` costs beside the same picture in this process.

    python scripts/measure_server.py examples/astronaut.png

Three ways to upscale the same photo of 500x375 pixels take turns: an array by `Upscaler`; a file by
the loop of ``agsr infer``, which decodes and encodes; and ``POST /v1/upscale`` to a server process.
Everything behind the photo goes to ``agsr serve`` and to neither of the others. The figures of
docs/serve.md are those of a computer that does nothing else.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from load_server import server
from PIL import Image

from agsr import Upscaler
from agsr.engines.batch.plan import Job
from agsr.engines.batch.runner import InferOptions, process

ROUNDS = 25
SIZE = (500, 375)
STEPS = 1


def seconds(act: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def post(connection: http.client.HTTPConnection, content: bytes) -> bytes:
    """Return a server's answer to a photo."""
    connection.request("POST", "/v1/upscale?name=photo.jpg", content)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"the server answered {answer.status}: {body[:300]!r}")
    return body


def rounds(photo: Path, connection: http.client.HTTPConnection) -> list[tuple[float, float, float]]:
    """Return seconds of the array, the file and the request, round by round."""
    target = photo.with_name("result.png")
    upscaler = Upscaler("psnr", steps=STEPS)
    pixels = np.asarray(Image.open(photo))
    content = photo.read_bytes()

    def by_file() -> None:
        (outcome,) = process(upscaler, [Job(photo, target, ".png")], InferOptions())
        if outcome.size is None:
            raise SystemExit(outcome.error)

    def by_server() -> None:
        answers.append(post(connection, content))

    answers: list[bytes] = []
    ways: tuple[Callable[[], object], ...] = (lambda: upscaler(pixels), by_file, by_server)
    found = [tuple(map(seconds, ways)) for _ in range(ROUNDS + 1)][1:]  # the first warms up
    if any(answer != target.read_bytes() for answer in answers):
        raise SystemExit("the server's file differs from that of agsr infer")
    return found  # type: ignore[return-value]  # three ways


def main() -> None:
    """Take turns and print the medians."""
    image, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.open(image).convert("RGB").resize(SIZE).save(photo, quality=95)
        with server("--steps", str(STEPS), "--no-ui", *options) as (_, address):
            connection = http.client.HTTPConnection(address.split("/")[2], timeout=300)
            found = rounds(photo, connection)
    array, file, request = (statistics.median(column) for column in zip(*found, strict=True))
    beyond_file = statistics.median(c - b for _, b, c in found)
    beyond_array = statistics.median(c - a for a, _, c in found)
    print(f"array: {array:.3f} s; file: {file:.3f} s; POST: {request:.3f} s")
    print(f"POST adds {1000 * beyond_file:.1f} ms to the file, {1000 * beyond_array:.1f} ms to the")
    print(f"array, which has no decoding and encoding; medians of differences, {ROUNDS} rounds")


if __name__ == "__main__":
    main()
