"""TensorRT backends on the fake GPU of `fake_gpu`: a plugin, whose fixtures all tests have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeEngine, fake_module

from agsr.backend import Batch
from agsr.contract import ModelMetadata
from agsr.engines.tensorrt import engine_source
from agsr.engines.tensorrt.api import Flavour, TensorRt
from agsr.engines.tensorrt.backend import TrtBackend
from agsr.engines.tensorrt.engine_cache import EngineCache
from agsr.engines.tensorrt.options import BuildOptions, BuildReport, Profile

METADATA = ModelMetadata(
    steps=4, precision="fp16", receptive_radius=3, config="{}", weights_hash="w", version=""
)
SMALL = BuildOptions(profiles=(Profile((1, 8, 8), (1, 16, 16), (2, 24, 32)),))

Make = Callable[..., TrtBackend]


class Messages:
    """Fake of TensorRT's logger with one error that seems to have just happened."""

    count = 0

    def __init__(self, error: str) -> None:
        self._error = error

    def reason(self, _since: int) -> str:
        return self._error


def maker(
    cuda: FakeCuda, engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """Return a function that makes backends on the fake GPU; engines are text."""
    model = folder / "model.onnx"
    model.write_bytes(b"onnx")
    built = [METADATA]

    def build(_trt: Any, _onnx: bytes, _source: str, options: BuildOptions, _report: Any) -> Any:
        facts = BuildReport(
            metadata=replace(built[0], scale=engine.scale),
            flavour="tensorrt",
            version="11",
            layers={},
            size=6,
            options=options,
        )
        return b"engine", facts

    monkeypatch.setattr(engine_source, "build_engine", build)
    monkeypatch.setattr(TensorRt, "messages", lambda _: Messages("out of memory"))

    def make_backend(
        options: BuildOptions = SMALL,
        path: Path = model,
        flavour: Flavour = "tensorrt",
        content: bytes | None = None,
        metadata: ModelMetadata = METADATA,
    ) -> TrtBackend:
        built[0] = metadata
        return TrtBackend(
            path,
            content=content,
            options=options,
            cache=EngineCache(folder / "cache"),
            trt=TensorRt(fake_module(engine), flavour),
            cuda=cuda,
        )

    return make_backend


def batches(*shapes: tuple[int, int, int]) -> Iterator[Batch]:
    random = np.random.default_rng(0)
    for batch, height, width in shapes:
        yield random.random((batch, 3, height, width), dtype=np.float32)


def repeated(lr: Batch) -> Batch:
    return lr.repeat(4, axis=2).repeat(4, axis=3)


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def engine(cuda: FakeCuda) -> FakeEngine:
    return FakeEngine(cuda)


@pytest.fixture
def make(
    cuda: FakeCuda, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Make:
    return maker(cuda, engine, tmp_path, monkeypatch)
