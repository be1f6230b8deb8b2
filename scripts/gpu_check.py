"""Parity and throughput of every backend that runs on this machine's GPU, as JSON.

    python scripts/gpu_check.py [--device cuda] [-o results.json]

Each is compared with torch in fp32 on the CPU on a real photograph, and timed on an input of
320x180 with 4 steps, host copies included: medians over rounds in which all take turns, so that
drift hits all alike. What can't run here gives a line that says why.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from agsr.backend import Backend
from agsr.bench.environment import machine, packages
from agsr.engines.select import open_backend
from agsr.errors import AgsrError
from agsr.export.verify import sample_batch

STEPS = 4
ROUNDS = 20
SIZE = (180, 320)


def contenders(device: str) -> dict[str, Callable[[], Backend]]:
    """What is tried, by name."""
    torch_on = partial(open_backend, "torch", steps=STEPS, device=device)
    return {
        "torch fp32": torch_on,
        "torch fp16": partial(torch_on, precision="fp16"),
        "torch bf16": partial(torch_on, precision="bf16"),
        "ort cuda": partial(open_backend, "ort", steps=STEPS, provider="cuda"),
        "trt fp16": partial(open_backend, "trt", steps=STEPS),
        "trt fp32": partial(open_backend, "trt", steps=STEPS, precision="fp32"),
    }


@click.command(help=__doc__)
@click.option("--device", default="cuda", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("gpu_check.json"))
def main(device: str, output: Path) -> None:
    """Run all, print a line for each, write the JSON."""
    photo, large = sample_batch(1, 128, 128), sample_batch(1, *SIZE)
    with open_backend("torch", steps=STEPS) as reference:
        expected = reference.upscale(photo)
    backends: dict[str, Backend] = {}
    results: dict[str, dict[str, Any]] = {}
    for name, load in contenders(device).items():
        backend, results[name] = _try(load, photo, expected)
        if backend is not None:
            backend.upscale(large)  # the first run plans
            backends[name] = backend
    for name, seconds in _time(backends, large).items():
        results[name]["seconds"] = seconds
        results[name]["median"] = statistics.median(seconds)
    for name, result in results.items():
        click.echo(f"{name}: {_line(result)}")
    facts = {check.name: check.found for check in (*machine(), *packages())}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    output.write_text(json.dumps({"environment": facts, "results": results}, indent=1))


def _try(
    load: Callable[[], Backend], photo: Any, expected: Any
) -> tuple[Backend | None, dict[str, Any]]:
    try:
        backend = load()
        return backend, _parity(backend, photo, expected)
    except AgsrError as error:
        return None, {"error": str(error)}


def _parity(backend: Backend, photo: Any, expected: Any) -> dict[str, Any]:
    difference = np.abs(backend.upscale(photo) - expected) * 255
    return {
        "device": backend.info.device,
        "largest_levels": float(difference.max()),
        "mean_levels": float(difference.mean()),
    }


def _time(backends: dict[str, Backend], lr: Any) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(ROUNDS):
        for name, backend in backends.items():
            started = time.perf_counter()
            backend.upscale(lr)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _line(result: dict[str, Any]) -> str:
    if "error" in result:
        return str(result["error"])
    return (
        f"{result['median'] * 1e3:.1f} ms, at most {result['largest_levels']:.2f} levels from "
        f"torch fp32 on the CPU, mean {result['mean_levels']:.4f} ({result['device']})"
    )


if __name__ == "__main__":
    main()
