from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agsr.errors import CheckpointError
from agsr.image import read_rgb
from agsr.metrics.lpips import Lpips, lpips_images


@pytest.mark.data
def test_lpips_alex_gives_its_authors_values(data: Path) -> None:
    folder = data / "lpips"
    metric = Lpips("alexnet", folder / "alexnet.npz")
    reference = read_rgb(folder / "ex_ref.png")
    for name, expected in (("ex_p0", 0.722), ("ex_p1", 0.138)):
        found = lpips_images(metric, reference, read_rgb(folder / f"{name}.png"))
        assert found == pytest.approx(expected, abs=5e-4)
    assert lpips_images(metric, reference, reference) == 0


@pytest.mark.data
def test_vgg_distance_grows_with_the_error_and_has_a_gradient(data: Path) -> None:
    metric = Lpips("vgg16", data / "lpips" / "vgg16.npz")
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32)
    noise = torch.randn_like(image)
    small, large = (metric(image, image + size * noise) for size in (0.02, 0.2))
    assert 0 < small < large
    changed = (image + 0.1 * noise).requires_grad_()
    metric(image, changed).sum().backward()
    assert changed.grad is not None
    assert changed.grad.abs().sum() > 0


def test_wrong_weights_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    with pytest.raises(CheckpointError, match="no such file"):
        Lpips("alexnet", path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(CheckpointError, match="not a readable"):
        Lpips("alexnet", path)
    np.savez(path, x=np.zeros(1))
    with pytest.raises(
        CheckpointError, match=r"not the weights of alexnet; 'conv0\.weight' is missing"
    ):
        Lpips("alexnet", path)
