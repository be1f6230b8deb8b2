"""bf16 exports: what is in them, what runs them; and what a precision costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import NEEDS_OPENVINO
from numpy.typing import NDArray

from agsr.backend import Batch
from agsr.bicubic import downscale
from agsr.datasets.pairs import Pair
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.engines.runtimes.torch_backend import TorchBackend
from agsr.engines.tensorrt.api import load_tensorrt
from agsr.engines.tensorrt.builder import build_engine
from agsr.engines.tensorrt.options import BuildOptions
from agsr.errors import ExportError, ModelError
from agsr.export import ExportReport, export_onnx
from agsr.export.fidelity import measure
from agsr.export.verify import SHAPES, sample_batch
from agsr.model.checkpoint import Checkpoint
from agsr.system.cpu import ISA_VARIABLE

pytestmark = pytest.mark.processor

ADA = BuildOptions(targets=("sm89",))


@pytest.fixture(scope="module")
def bf16(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    path = tmp_path_factory.mktemp("bf16") / "tiny-2-bf16.onnx"
    return export_onnx(checkpoint, path, steps=2, precision="bf16")


@NEEDS_OPENVINO
@pytest.mark.parametrize("level", ["", "avx2"])
def test_openvino_runs_bf16_files_on_any_processor(
    bf16: ExportReport, checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Where the processor lacks bf16 it computes them in fp32."""
    monkeypatch.setenv(ISA_VARIABLE, level)
    lr = sample_batch(1, 31, 45)
    exact = TorchBackend(checkpoint_file, steps=2).upscale(lr)
    with OpenVinoBackend(Path(bf16.path), precision="bf16") as backend:
        assert np.abs(backend.upscale(lr) - exact).max() < 0.05


def test_loss_is_measured_against_the_original(photo: NDArray[np.uint8]) -> None:
    def repeat(lr: Batch) -> Batch:
        return lr.repeat(4, axis=2).repeat(4, axis=3)

    pairs = [Pair(hr=photo, lr=downscale(photo))]
    same = measure(repeat, repeat, pairs, "here", "fp16")
    assert (same.loss, same.images) == (0, 1)
    assert same.psnr == same.psnr_fp32 > 15
    with pytest.raises(ExportError, match=r"fp16 loses \d+\.\d+ dB .* use bf16 or fp32"):
        measure(repeat, lambda lr: repeat(1 - lr), pairs, "here", "fp16")


def test_bf16_is_inside_only(bf16: ExportReport) -> None:
    model = onnx.load(bf16.path)
    assert bf16.opset == 22
    ports = [p.type.tensor_type.elem_type for p in (*model.graph.input, *model.graph.output)]
    assert ports == [onnx.TensorProto.FLOAT] * 2
    types = Counter(t.data_type for t in model.graph.initializer)
    assert types.keys() <= {onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64}
    assert bf16.operators["Cast"] == 2


def test_bf16_is_verified_at_every_shape_and_its_loss_reported(bf16: ExportReport) -> None:
    assert tuple(row.shape for row in bf16.parity) == SHAPES
    assert 1e-4 < max(row.largest for row in bf16.parity) < 0.05
    assert bf16.fidelity is not None
    assert abs(bf16.fidelity.loss) < 0.1


def test_tensorrt_builds_bf16(bf16: ExportReport) -> None:
    _, report = build_engine(load_tensorrt(), Path(bf16.path).read_bytes(), "bf16", ADA)
    assert report.products() == {"BF16": bf16.operators["Conv"]}


def test_bf16_needs_an_opset_that_knows_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset is 20; expected 22 to 24 for bf16"):
        export_onnx(checkpoint, tmp_path / "m.onnx", steps=1, precision="bf16", opset=20)


def test_the_error_about_bf16_names_backends_that_run_it(bf16: ExportReport) -> None:
    with pytest.raises(ModelError, match="runs on --backend openvino or trt"):
        OrtBackend(Path(bf16.path))
