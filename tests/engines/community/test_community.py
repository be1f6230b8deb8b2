"""Weights of other projects on torch: what loads, what is refused, and how it upscales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agsr import Upscaler
from agsr.backend import Batch
from agsr.contract import SizeRule
from agsr.engines.community.backend import CommunityBackend
from agsr.engines.community.loader import load_network
from agsr.engines.open import check_request, open_backend
from agsr.errors import (
    BackendError,
    BackendRequestError,
    MissingDependencyError,
    ModelError,
    UnknownWeightsError,
)
from agsr.pretrained import is_community
from agsr.system import optional_import

MakeFile = Callable[[str], Path]

FOUND = {
    "esrgan": ("ESRGAN", 4, "supported"),
    "compact": ("RealESRGAN Compact", 4, "supported"),
    "compact-x2": ("RealESRGAN Compact", 2, "supported"),
    "compact-x1": ("RealESRGAN Compact", 1, "supported"),
    "compact-grey": ("RealESRGAN Compact", 4, "supported"),
    "span": ("SPAN", 4, "supported"),
    "realplksr": ("PLKSR", 4, "supported"),
    "dat": ("DAT", 4, "supported"),
    "swinir": ("SwinIR", 2, "discouraged"),
    "omnisr": ("OmniSR", 4, "supported"),
    "hat": ("HAT", 2, "supported"),
    "atd": ("ATD", 2, "supported"),
}


CRAFT_PSNR = 38.696
"""PSNR-Y of CRAFT on the upper left 128x128 pixels of Set5's bird, dB."""


def random_batch(height: int, width: int, count: int = 1) -> Batch:
    values = np.random.default_rng(0).random((count, 3, height, width))
    return values.astype(np.float32)


@pytest.mark.parametrize("name", FOUND)
def test_architecture_scale_and_tiling_are_found(community_file: MakeFile, name: str) -> None:
    facts = load_network(community_file(name)).facts
    assert (facts.architecture, facts.scale, facts.tiling) == FOUND[name]
    assert facts.channels == (1 if "grey" in name else 3)


@pytest.mark.parametrize("name", FOUND)
def test_any_size_is_upscaled(community_file: MakeFile, name: str) -> None:
    """Also one far below the smallest size that the network accepts."""
    with CommunityBackend(community_file(name)) as backend:
        for height, width in ((1, 1), (5, 21)):
            sr = backend.upscale(random_batch(height, width))
            scale = FOUND[name][1]
            assert sr.shape == (1, 3, height * scale, width * scale)


def test_sizes_are_padded_by_mirroring(community_file: MakeFile) -> None:
    """The result is that of the picture with its mirror image below and beside it, cropped."""
    lr = random_batch(13, 21)
    with CommunityBackend(community_file("omnisr")) as backend:
        assert backend.sizes == SizeRule(minimum=16)
        padded = np.pad(lr, ((0, 0), (0, 0), (0, 3), (0, 0)), mode="reflect")
        expected = backend.upscale(padded)[:, :, :52]
        np.testing.assert_array_equal(backend.upscale(lr), expected)
        assert callable(backend.bound_call(lr))
        backend.bound_call(lr)()


def test_grey_network_upscales_luma_and_bicubic_the_colour(community_file: MakeFile) -> None:
    from agsr.bicubic import upscale_planes
    from agsr.metrics.luma import full_range_luma

    path, lr = community_file("compact-grey"), random_batch(12, 17)
    network, luma = load_network(path), full_range_luma(lr)
    with torch.inference_mode():
        upscaled = network.call(network.module, torch.from_numpy(luma)).numpy()
    with CommunityBackend(path) as backend:
        np.testing.assert_allclose(
            backend.upscale(lr), upscaled + upscale_planes(lr - luma), atol=1e-5
        )


def test_upscaler_runs_a_file_by_its_path(community_file: MakeFile) -> None:
    picture = (random_batch(9, 14)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    with Upscaler(str(community_file("compact"))) as upscaler:
        assert upscaler(picture).shape == (36, 56, 3)
        assert upscaler.info.summary == "torch (cpu), RealESRGAN Compact ×4, fp32"


def test_safetensors_of_others_are_told_from_our_own(
    community_file: MakeFile, checkpoint_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "compact.safetensors"
    save_file(torch.load(community_file("compact"))["params_ema"], path, {"format": "pt"})
    assert (is_community(str(path)), is_community(str(checkpoint_file))) == (True, False)
    with open_backend("auto", str(path)) as backend:
        assert backend.info.architecture == "RealESRGAN Compact"
    with open_backend("torch", str(checkpoint_file)) as backend:
        assert backend.info.architecture == ""


@pytest.mark.parametrize(("name", "precision"), [("dat", "fp16"), ("realplksr", "fp16")])
def test_a_precision_that_the_architecture_lacks_is_refused(
    community_file: MakeFile, name: str, precision: str
) -> None:
    with pytest.raises(BackendRequestError, match=r"doesn't support fp16; it runs in fp32 or bf16"):
        CommunityBackend(community_file(name), precision=precision)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.filterwarnings("ignore:.*emulates")
def test_reduced_precision_is_close(community_file: MakeFile, precision: str) -> None:
    lr = random_batch(12, 12)
    with (
        CommunityBackend(community_file("compact")) as exact,
        CommunityBackend(community_file("compact"), precision=precision) as reduced,
    ):
        difference = np.abs(exact.upscale(lr) - reduced.upscale(lr)).max()
        assert 0 < difference < 0.03


def test_requests_are_checked_before_anything_loads(community_file: MakeFile) -> None:
    path = str(community_file("compact"))
    check_request("auto", path)
    with pytest.raises(BackendRequestError, match="another's has no such loop"):
        check_request("auto", path, steps=2)
    with pytest.raises(BackendRequestError, match=r"int8; export it with: agsr export"):
        check_request("torch", path, precision="int8")
    with pytest.raises(UnknownWeightsError, match="no such file"):
        check_request("auto", "absent.pth")


@pytest.mark.parametrize("ending", [".pt", ".ckpt"])
def test_endings_of_files_with_code_are_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"network{ending}"
    path.touch()
    with pytest.raises(UnknownWeightsError, match=r"code.*rename plain weights to \.pth"):
        check_request("auto", str(path))


def test_a_network_with_alpha_gets_an_opaque_picture(community_file: MakeFile) -> None:
    network, lr = load_network(community_file("compact-rgba")), random_batch(12, 9)
    assert network.facts.channels == 4
    opaque = np.concatenate([lr, np.ones_like(lr[:, :1])], axis=1)
    with torch.inference_mode():
        expected = network.call(network.module, torch.from_numpy(opaque)).numpy()
    with CommunityBackend(community_file("compact-rgba")) as backend:
        np.testing.assert_allclose(backend.upscale(lr), expected[:, :3], atol=1e-5)


def test_a_missing_spandrel_is_named_with_its_extra(
    community_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    path = community_file("compact")
    monkeypatch.setattr(optional_import, "import_without_telemetry", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'agsr\[models\]'"):
        load_network(path)


def test_a_torchvision_that_does_not_fit_is_explained(
    community_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(module: str) -> Any:
        raise RuntimeError(f"operator {module}::nms does not exist")

    path = community_file("compact")
    monkeypatch.setattr(optional_import, "import_without_telemetry", unfit)
    with pytest.raises(ModelError, match="install it for the installed torch, from the same index"):
        load_network(path)


def test_an_only_size_refuses_larger_inputs(community_file: MakeFile) -> None:
    with CommunityBackend(community_file("compact")) as backend:
        backend.sizes = SizeRule(fixed=(8, 8))
        assert backend.upscale(random_batch(3, 5)).shape == (1, 3, 12, 20)
        with pytest.raises(BackendError, match="accepts 8x8 pixels, got 9x8; cut the image"):
            backend.upscale(random_batch(8, 9))


@pytest.mark.data
def test_a_real_file_upscales_a_photo_as_published(data: Path) -> None:
    """CRAFT; on all of Set5 it scores what `docs/models.md` says."""
    from agsr.image import read_rgb
    from agsr.metrics import psnr_y

    lr, hr = (
        read_rgb(data / "Set5" / kind / name)[: 128 // size, : 128 // size]
        for kind, name, size in (("LRx4", "bird.png", 4), ("HR", "bird.png", 1))
    )
    with CommunityBackend(data / "models" / "CRAFT_x4.pth") as backend:
        sr = backend.upscale(np.ascontiguousarray(lr.transpose(2, 0, 1)[None] / 255, np.float32))
        assert backend.sizes == SizeRule(minimum=16, multiple=16)
    levels = (np.clip(sr[0], 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    found = psnr_y(np.ascontiguousarray(levels), np.ascontiguousarray(hr))
    assert found == pytest.approx(CRAFT_PSNR, abs=0.01)


@pytest.mark.filterwarnings("ignore:.*emulates")
def test_a_precision_that_overflows_is_replaced_with_a_warning(
    community_file: MakeFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Features beyond the largest fp16 number: infinite there, fine in bf16."""
    state = torch.load(community_file("compact"))["params_ema"]
    for name, value in state.items():
        if name in ("body.0.weight", "body.0.bias"):
            state[name] = value * 1e6
        if name == "body.2.weight":
            state[name] = value * 1e-6
    path = tmp_path / "large.pth"
    torch.save(state, path)
    with CommunityBackend(path, precision="fp16") as backend:
        assert backend.info.precision == "bf16"
        assert np.isfinite(backend.upscale(random_batch(8, 8))).all()
    assert "fp16 gives NaN or infinity; running in bf16 instead" in caplog.text


def test_black_and_deviating_results_are_faults() -> None:
    from agsr.engines.community.trust import fault

    right = random_batch(8, 8)
    assert fault(right + np.float32(0.001), right) == ""
    assert fault(right * 0, right) == "gives a black picture"
    assert fault(right * np.float32(np.nan), right) == "gives NaN or infinity"
    assert "differs from fp32 by" in fault(right + np.float32(0.05), right)


@pytest.mark.filterwarnings("ignore:.*emulates")
def test_an_architecture_that_fails_in_a_precision_runs_in_the_next(
    community_file: MakeFile, caplog: pytest.LogCaptureFixture
) -> None:
    """SwinIR mixes types in bf16 on CPUs, though it is said to support it."""
    with CommunityBackend(community_file("swinir"), precision="bf16") as backend:
        assert backend.info.precision == "fp32"
    assert "bf16 fails: torch failed" in caplog.text
