"""Parts of benchmark results, and the check of their JSON by its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from agsr.bench.runner import results
from agsr.bench.runner.entries import Contender
from agsr.bench.runner.results import ImageScore, Limit, Parity, Row, Timing
from agsr.bench.scoring import Scores

INFINITE = float("inf")


def image(psnr: float, lpips: float | None = None, parity: Parity | None = None) -> ImageScore:
    scores = Scores(psnr=psnr, ssim=0.9, lpips=lpips)
    return ImageScore(image=f"at {psnr}", scores=scores, parity=parity)


def timing(*rounds: tuple[float, ...], flops: float | None = 1e9) -> Timing:
    return Timing(
        workload="320x180", boundary="host", images=2, output_pixels=8_000_000, flops=flops,
        rounds=rounds,
    )  # fmt: skip


def limit(device: str, precision: str, *rounds: float) -> Limit:
    return Limit(device=device, precision=precision, library="torch", flops=2e9, rounds=rounds)


def row(device: str = "cpu", precision: str = "fp32", **found: Any) -> Row:
    contender = Contender(backend="torch", weights="psnr", steps=1, precision=precision)
    return Row(contender=contender, device=device, precision=precision, steps=1, **found)


def validate(record: dict[str, Any]) -> None:
    schema = json.loads((Path(results.__file__).parent / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(record)
