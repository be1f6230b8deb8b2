"""Parts of benchmark results, and the check of their JSON by its schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from agsr.bench.runner import results
from agsr.bench.runner.entries import Entry
from agsr.bench.runner.measurements import ImageScore, Parity, PeakThroughput, SetScore, Timing
from agsr.bench.runner.results import BenchResult, Row
from agsr.bench.scoring import Scores

INFINITE = float("inf")

_PLACES = {
    "bicubic": ("numpy", "uint8"),
    "ort": ("CPUExecutionProvider", "fp32"),
    "torch": ("cpu", "fp32"),
}


def image(psnr: float, lpips: float | None = None, parity: Parity | None = None) -> ImageScore:
    scores = Scores(psnr=psnr, ssim=0.9, lpips=lpips)
    return ImageScore(image=f"at {psnr}", scores=scores, parity=parity)


def timing(*rounds: tuple[float, ...], flops: float | None = 1e9) -> Timing:
    return Timing(
        workload="320x180", boundary="host", images=2, output_pixels=8_000_000, flops=flops,
        rounds=rounds,
    )  # fmt: skip


def peak(device: str, precision: str, *rounds: float) -> PeakThroughput:
    return PeakThroughput(
        device=device, precision=precision, library="torch", flops=2e9, rounds=rounds
    )


def row(device: str = "cpu", precision: str = "fp32", **found: Any) -> Row:
    entry = Entry(backend="torch", weights="psnr", steps=1, precision=precision)
    return Row(entry=entry, device=device, precision=precision, steps=1, **found)


def validate(record: dict[str, Any]) -> None:
    schema = json.loads((Path(results.__file__).parent / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(record)


def plotted_row(weights: str, steps: int, psnr: float, seconds: float) -> Row:
    scores = ImageScore(image="photo", scores=Scores(psnr=psnr, ssim=0.9))
    return Row(
        entry=Entry(backend="ort", weights=weights, steps=steps),
        device="CPUExecutionProvider",
        precision="fp32",
        steps=steps,
        quality=(SetScore(set="Mini", images=(scores,)),),
        timings=(
            Timing(
                workload="320x180",
                boundary="host",
                images=1,
                output_pixels=1280 * 720,
                flops=1e9,
                rounds=((seconds,), (seconds * 1.1,)),
            ),
        ),
    )


def plotted_result() -> BenchResult:
    """Three networks with scores and times, and one that failed."""
    return BenchResult(
        created="2026-01-01T00:00:00+00:00",
        command="agsr bench --set <Mini>",
        environment={"processor": "a <fast> one", "cores": "2"},
        rows=(
            plotted_row("psnr", 1, 30.0, 0.1),
            plotted_row("psnr", 4, 31.0, 0.3),
            plotted_row("gan", 4, 29.0, 0.2),
            Row(entry=Entry(backend="trt", weights="psnr"), error="no driver & no GPU"),
        ),
    )


def simulate(
    rng: np.random.Generator,
    *,
    slowdown: float = 1.0,
    drift: Sequence[float] | float = 1.0,
    noise: float = 0.02,
    rounds: int = 5,
    psnr: float = 30.0,
) -> BenchResult:
    """A run on a machine whose speed changes from round to round, with noise on every round."""
    pace = np.broadcast_to(np.asarray(drift), rounds)

    def measured(seconds: float, share: float) -> list[float]:
        return (seconds * pace * np.exp(rng.normal(0, share, rounds))).tolist()

    def row(backend: str) -> Row:
        device, precision = _PLACES[backend]
        seconds = measured(0.2 * (slowdown if backend == "torch" else 1), noise)
        timing = Timing(
            workload="Mini",
            boundary="host",
            images=1,
            output_pixels=1,
            flops=None,
            rounds=tuple((value,) for value in seconds),
        )
        score = ImageScore(image="a", scores=Scores(psnr=psnr, ssim=0.9))
        return Row(
            entry=Entry(backend=backend),
            device=device,
            precision=precision,
            quality=(SetScore(set="Mini", images=(score,)),),
            timings=(timing,),
        )

    product = PeakThroughput(
        device="cpu",
        precision="fp32",
        library="torch",
        flops=1e9,
        rounds=tuple(measured(0.02, noise / 2)),
    )
    rows = tuple(map(row, _PLACES))
    return BenchResult(created="", command="", environment={}, rows=rows, peaks=(product,))
