"""The model of Triton's Python backend, without Triton: its module is played."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from foreign_graphs import repeated, repeating
from numpy.typing import NDArray

from agsr.export import triton
from agsr.export.verify import sample_batch


class PlayedTensor:
    """Takes a DLPack capsule as Triton does, which renames it in its own way."""

    def __init__(self, name: str, values: NDArray[Any]) -> None:
        self.name, self.values = name, values

    @staticmethod
    def from_dlpack(name: str, capsule: Any) -> PlayedTensor:
        holder = SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0))
        return PlayedTensor(name, np.from_dlpack(holder).copy())

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The model's module, as Triton loads it: from the version's folder, without agsr."""
    played = ModuleType("triton_python_backend_utils")
    played.__dict__.update(
        Tensor=PlayedTensor,
        TritonError=lambda message: message,
        InferenceResponse=lambda tensors, error=None: SimpleNamespace(tensors=tensors, error=error),
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    monkeypatch.setitem(sys.modules, played.__name__, played)
    repeating(tmp_path / "model.onnx")
    source = Path(triton.__file__).with_name("triton_model.py")
    shutil.copyfile(source, tmp_path / "model.py")
    assert "agsr." not in source.read_text().partition('"""\n\n')[2]  # the server hasn't got it
    spec = importlib.util.spec_from_file_location("served_model", tmp_path / "model.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _model(module: ModuleType) -> Any:
    config = {
        "input": [{"name": "picture"}],
        "output": [{"name": "enlarged"}],
        "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    }
    model = module.TritonPythonModel()
    kind = {"model_instance_kind": "CPU", "model_instance_device_id": "0"}
    model.initialize({"model_config": json.dumps(config), **kind})
    return model


def test_requests_of_one_size_run_as_one_batch_and_answers_keep_their_order(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(1, 9, 12), (2, 7, 7), (1, 9, 12)]
    inputs = [sample_batch(*size) + number for number, size in enumerate(sizes)]
    model, shapes = _model(module), []
    run = model._session.run

    def counted(names: Any, feeds: Any) -> Any:
        shapes.append(feeds["picture"].shape)
        return run(names, feeds)

    monkeypatch.setattr(model, "_session", SimpleNamespace(run=counted))
    answers = model.execute([{"picture": PlayedTensor("picture", values)} for values in inputs])
    assert shapes == [(2, 3, 9, 12), (2, 3, 7, 7)]
    for values, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(answer.tensors[0].values, repeated(values))


def test_an_error_answers_the_requests_it_concerns(module: ModuleType) -> None:
    wrong = np.zeros((1, 5, 8, 8), np.float32)
    requests = [PlayedTensor("picture", values) for values in (wrong, sample_batch(1, 8, 8))]
    bad, good = _model(module).execute([{"picture": request} for request in requests])
    assert "picture" in bad.error
    assert (good.error, good.tensors[0].values.shape) == (None, (1, 3, 32, 32))


def test_an_instance_on_a_gpu_asks_for_its_device(module: ModuleType) -> None:
    given = {"model_instance_kind": "GPU", "model_instance_device_id": "2"}
    assert module._providers(given)[0] == ("CUDAExecutionProvider", {"device_id": 2})
