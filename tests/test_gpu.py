"""What only a GPU can show: every backend there gives what torch gives on the CPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from agsr.backend import Batch
from agsr.engines.ort_session import available_providers
from agsr.engines.select import open_backend
from agsr.errors import MissingDependencyError
from agsr.export.verify import sample_batch

pytestmark = pytest.mark.gpu

STEPS = 4
LEVEL = 1 / 255

CONTENDERS = [
    ("torch", {"device": "cuda"}, 0.01),
    ("torch", {"device": "cuda", "precision": "fp16"}, 1.0),
    ("ort", {"provider": "cuda"}, 0.01),
    ("trt", {"precision": "fp32"}, 0.05),
    ("trt", {"precision": "fp16"}, 1.0),
]
"""Backend, options, and 8-bit levels that its result may be off."""


@pytest.fixture(scope="module", autouse=True)
def gpu() -> str:
    """Name of the GPU."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA GPU here")
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Real pixels of several shapes, one of them twice, so that it is run from a CUDA graph."""
    return [sample_batch(1, *size) for size in ((128, 128), (67, 93), (128, 128), (1, 1))]


@pytest.fixture(scope="module")
def expected(gpu: str, batches: list[Batch]) -> list[Batch]:  # noqa: ARG001  # no GPU, no work
    with open_backend("torch", steps=STEPS) as reference:
        return [reference.upscale(lr) for lr in batches]


@pytest.mark.parametrize(("name", "options", "levels"), CONTENDERS)
def test_pixels_equal_those_of_torch_on_the_cpu(
    name: str,
    options: dict[str, str],
    levels: float,
    batches: list[Batch],
    expected: list[Batch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    if name == "ort" and "cuda" not in available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    try:
        backend = open_backend(name, steps=STEPS, **options)  # type: ignore[arg-type]
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with backend:
        for round_ in range(2):
            for lr, sr, found in zip(batches, expected, backend.upscale_many(batches), strict=True):
                worst = np.abs(found - sr).max()
                assert worst <= levels * LEVEL, (round_, lr.shape, worst / LEVEL)
        run = backend.resident(batches[0])
        run()
        again = backend.upscale(batches[0])
        assert np.abs(again - expected[0]).max() <= levels * LEVEL
