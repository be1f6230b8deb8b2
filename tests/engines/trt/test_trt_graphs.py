"""Recurring sizes replayed as CUDA graphs, on the stand-in for a GPU of `fake_gpu`."""

from __future__ import annotations

import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeEngine
from fake_trt import Make, batches, repeated

from agsr.errors import BackendError


def test_a_shape_is_replayed_from_its_third_run_in_a_slot(
    make: Make, cuda: FakeCuda, engine: FakeEngine
) -> None:
    assert cuda.graphs is not None
    with make() as backend:
        for launched in (0, 0, 2, 4):
            given = list(batches((1, 12, 12), (1, 12, 12)))
            for lr, sr in zip(given, backend.upscale_many(iter(given)), strict=True):
                np.testing.assert_array_equal(sr, repeated(lr))
            assert len(cuda.graphs.launched) == launched
        assert len(set(cuda.graphs.launched)) == 2  # one for each slot's addresses
        assert len(engine.contexts) == 3  # and a context for each, that nothing else changes
        shared = {context.scratch for context in engine.contexts}
        assert len(shared) == 1


def test_replays_of_many_shapes_stay_apart(
    make: Make, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agsr.engines.tensorrt.executor.MAX_CALLS", 5)
    assert cuda.graphs is not None
    shapes = [(1, 8, 8), (2, 24, 32), (1, 24, 32), (1, 8, 8), (1, 24, 32)]
    with make() as backend:
        for seed in range(9):
            given = [lr + np.float32(seed) for lr in batches(*shapes)]
            for lr, sr in zip(given, backend.upscale_many(iter(given)), strict=True):
                np.testing.assert_array_equal(sr, repeated(lr))
            assert len(cuda.graphs.graphs) <= 5
        assert cuda.graphs.launched


def test_calls_are_captured_again_when_buffers_grow(make: Make, cuda: FakeCuda) -> None:
    small, large = batches((1, 8, 8), (2, 24, 32))
    with make() as backend:
        for lr in (small, small, small, large, small, small, small, small):
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
        assert cuda.graphs is not None
        assert len(set(cuda.graphs.launched)) == 2


@pytest.mark.parametrize("reason", ["capture", "memory", "layer"])
def test_what_cannot_be_recorded_runs_plainly(
    make: Make, cuda: FakeCuda, engine: FakeEngine, reason: str
) -> None:
    if reason == "layer":
        cuda.graphs = None
    else:
        assert cuda.graphs is not None
        cuda.graphs.refuses = reason == "capture"
        engine.most_contexts = 1 if reason == "memory" else 1000
    with make() as backend:
        for lr in [*batches((1, 8, 8), (1, 9, 9))] * 4:
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert len(engine.contexts) <= 2
    assert cuda.graphs is None or not cuda.graphs.launched


def test_tensorrt_rtx_records_its_graphs_itself(
    make: Make, cuda: FakeCuda, engine: FakeEngine
) -> None:
    with make(flavour="tensorrt-rtx") as backend:
        for lr in [*batches((1, 8, 8))] * 4:
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    (how,) = engine.asked
    assert how.cuda_graph_strategy == "whole graph"
    assert cuda.graphs is not None
    assert not cuda.graphs.launched


def test_a_resident_batch_is_run_without_copies_beside_others(make: Make, cuda: FakeCuda) -> None:
    assert cuda.graphs is not None
    first, second, other = batches((1, 8, 8), (1, 9, 9), (1, 8, 8))
    backend = make()
    runs = [backend.bound_call(first), backend.bound_call(second)]
    outputs = {address: values.copy() for address, values in cuda.memory.items()}
    for _ in range(3):
        for run in runs:
            run()
        np.testing.assert_array_equal(backend.upscale(other), repeated(other))
    for address, values in outputs.items():  # the residents' results are those of their inputs
        np.testing.assert_array_equal(cuda.memory[address], values)
    assert len(set(cuda.graphs.launched)) == 3
    backend.close()
    assert not cuda.memory
    with pytest.raises(BackendError, match="this backend is closed"):
        runs[0]()
