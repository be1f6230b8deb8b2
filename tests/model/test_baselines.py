from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import SMALL, small_baseline
from numpy.typing import NDArray

from agsr.backend import Backend
from agsr.bicubic import upscale
from agsr.engines.open import open_backend
from agsr.errors import BackendError, ExportError
from agsr.export import export_onnx
from agsr.model.base import Network
from agsr.model.baselines import Srcnn, SrcnnConfig, SrResNet, SrResNetConfig
from agsr.model.checkpoint import load_checkpoint, save_checkpoint
from agsr.model.registry import NETWORKS, make_config


def test_published_sizes() -> None:
    count = {name: sum(p.numel() for p in kind().parameters()) for name, kind in NETWORKS.items()}
    assert count["srcnn"] == 9 * 9 * 3 * 64 + 64 + 5 * 5 * 64 * 32 + 32 + 5 * 5 * 32 * 3 + 3
    assert count["srgan"] == pytest.approx(1.55e6, rel=0.01)  # SRResNet, 16 blocks of 64


def test_srcnn_begins_with_the_fields_bicubic(photo: NDArray[np.uint8]) -> None:
    soft = (photo[:40, :50] * 0.6 + 40).round().astype(np.uint8)  # no clipping between the passes
    lr = torch.from_numpy(soft).permute(2, 0, 1)[None].float() / 255
    upscaled = Srcnn().upscale(lr)[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(upscaled - upscale(soft))  # which rounds after each pass
    assert difference.max() < 1.2
    assert difference.mean() < 0.5


@pytest.mark.parametrize(
    "network", [Srcnn(SrcnnConfig(width1=4, width2=4)), SrResNet(SrResNetConfig(width=4, blocks=1))]
)
def test_receptive_radius_is_exact(network: Network) -> None:
    network.eval()
    radius = network.config.receptive_radius(1)
    side = 2 * radius + 3
    lr = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    sr = network.double()(lr, 1)
    middle = 4 * (radius + 1)
    sr[0, :, middle : middle + 4, middle : middle + 4].abs().sum().backward()
    assert lr.grad is not None
    touched = lr.grad[0].abs().sum(0)
    assert touched[[0, -1]].count_nonzero() + touched[:, [0, -1]].count_nonzero() == 0
    assert touched[[1, -2]].count_nonzero() > 0


@pytest.mark.parametrize("name", SMALL)
def test_baselines_run_through_every_backend(name: str, tmp_path: Path) -> None:
    checkpoint = small_baseline(name)
    weights, onnx = tmp_path / "small.safetensors", tmp_path / "small.onnx"
    save_checkpoint(checkpoint, weights)
    assert load_checkpoint(weights).model == name
    report = export_onnx(load_checkpoint(weights), onnx)
    assert report.metadata.steps == 1
    lr = np.random.default_rng(0).random((2, 3, 9, 14), dtype=np.float32)
    expected = checkpoint.build()(torch.from_numpy(lr), 1).numpy()
    for backend in (open_backend("torch", str(weights)), open_backend("ort", str(onnx))):
        assert backend.info.steps == 1
        _agree(backend, lr, expected)
    half = export_onnx(checkpoint, tmp_path / "half.onnx", precision="fp16")
    session = onnxruntime.InferenceSession(half.path, providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"lr": lr})[0] - expected).max() < 4e-3


def _agree(backend: Backend, lr: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    with backend:
        np.testing.assert_allclose(backend.upscale(lr), expected, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_without_a_loop_has_one_step(name: str, tmp_path: Path) -> None:
    checkpoint = small_baseline(name)
    with pytest.raises(ExportError, match=f"{name} supports 1: it has no loop"):
        export_onnx(checkpoint, tmp_path / "x.onnx", steps=4)
    save_checkpoint(checkpoint, tmp_path / "x.safetensors")
    with pytest.raises(BackendError, match="it has no loop"):
        open_backend("torch", str(tmp_path / "x.safetensors"), steps=2)


def test_unknown_networks_and_fields_are_named() -> None:
    with pytest.raises(ValueError, match="no network named 'edsr'; known: agsr, srcnn, srgan"):
        make_config("edsr")
    with pytest.raises(ValueError, match="srgan has no growth; known: width, blocks, kernel"):
        make_config("srgan", {"growth": 3})
    with pytest.raises(ValueError, match=r"width is 0; expected an integer"):
        make_config("srgan", {"width": 0})
