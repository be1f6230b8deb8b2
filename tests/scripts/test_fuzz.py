"""Mutated files for everything that reads bytes from outside; the long search is `scripts/fuzz.py`.

Each target has a separate process, which a crash would end before its last line.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import PYTHONPATH, ROOT

ROUNDS = {"decode": 1200, "metadata": 4000, "load": 4000, "video": 400}
SECONDS = 10
"""More for one input is a hang."""

NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"-1", b"1e999", b"null")


@pytest.mark.parametrize("name", ROUNDS)
def test_mutated_files_never_crash_or_hang(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    accepted, refused = map(int, done.stdout.splitlines()[-1].split())
    assert accepted + refused == ROUNDS[name]
    assert min(accepted, refused) > ROUNDS[name] // 20


def test_faults_that_were_found_stay_mended() -> None:
    """``faults`` holds inputs of `scripts/fuzz.py`, each behind the name of its target."""
    from fuzz_targets import EXPECTED, TARGETS

    found = sorted((ROOT / "tests" / "faults").iterdir())
    assert len(found) >= 4
    for path in found:
        target, _ = TARGETS[path.name.partition("-")[0]]
        with suppress(*EXPECTED):
            target(path.read_bytes())


def mutated(files: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Each file in turn with one to four mutations, by a fixed seed."""
    random = np.random.default_rng(7)
    for number in range(count):
        content = bytearray(files[number % len(files)])
        for _ in range(random.integers(1, 5)):
            _mutate(content, files, random)
        yield bytes(content)


def _mutate(content: bytearray, files: Sequence[bytes], random: np.random.Generator) -> None:
    """A bit turned, a number set, a piece removed, repeated, or taken from another file."""
    if not content:
        return
    start, kind = int(random.integers(len(content))), random.integers(5)
    length = int(random.integers(1, 33))
    if kind == 0:
        content[start] ^= 1 << int(random.integers(8))
    elif kind == 1:
        value = NUMBERS[random.integers(len(NUMBERS))]
        content[start : start + len(value)] = value
    elif kind == 2:
        del content[start : start + length]
    elif kind == 3:
        content[start:start] = content[start : start + length]
    else:
        other = files[random.integers(len(files))]
        begin = int(random.integers(len(other)))
        content[start : start + length] = other[begin : begin + length]


def _run(name: str) -> tuple[int, int]:
    from fuzz_targets import EXPECTED, TARGETS

    target, seeds = TARGETS[name]
    accepted = 0
    for number, content in enumerate(mutated(list(seeds().values()), ROUNDS[name])):
        signal.alarm(SECONDS)
        try:
            target(content)
        except EXPECTED:
            continue
        except Exception:
            Path(f"fault-{name}-{number}").write_bytes(content)
            raise
        accepted += 1
    return accepted, ROUNDS[name] - accepted


if __name__ == "__main__":
    from agsr.system.quiet_stderr import quiet_decoders

    logging.disable()
    with quiet_decoders():
        counts = _run(sys.argv[1])
    print(*counts)  # noqa: T201  # the result of this process
