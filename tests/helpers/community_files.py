"""Weights of other projects' architectures: the smallest that spandrel recognizes, seeded.

Import it inside a fixture: spandrel takes seconds to load. The classes are spandrel's
own, so that the files have the names and shapes of real ones. The values are random.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from spandrel.architectures import ATD, DAT, ESRGAN, HAT, PLKSR, SPAN, Compact, OmniSR, SwinIR
from torch import nn


def _window(**options: Any) -> dict[str, Any]:
    return {"img_size": 16, "embed_dim": 12, "window_size": 8, "upscale": 2, **options}


def _compact(channels: int = 3, scale: int = 4) -> nn.Module:
    return Compact.Compact(
        num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "esrgan": lambda: ESRGAN.ESRGAN(num_filters=8, num_blocks=1),
    "compact": lambda: _compact(),
    "compact-x2": lambda: _compact(scale=2),
    "compact-x1": lambda: _compact(scale=1),
    "compact-grey": lambda: _compact(channels=1),
    "compact-rgba": lambda: _compact(channels=4),
    "span": lambda: SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4),
    "realplksr": lambda: PLKSR.RealPLKSR(
        dim=8, upscaling_factor=4, n_blocks=1, kernel_size=5, split_ratio=0.5
    ),
    "dat": lambda: DAT.DAT(
        img_size=16, embed_dim=64, split_size=[4, 8], depth=[2], num_heads=[2], upscale=4
    ),
    "swinir": lambda: SwinIR.SwinIR(
        **_window(depths=[2], num_heads=[2], mlp_ratio=2.0, upsampler="pixelshuffledirect")
    ),
    "omnisr": lambda: OmniSR.OmniSR(num_feat=16, block_num=1, res_num=1, up_scale=4),
    "hat": lambda: HAT.HAT(
        **_window(depths=(2,), num_heads=(2,), compress_ratio=3, squeeze_factor=3, mlp_ratio=2.0)
    ),
    "atd": lambda: ATD.ATD(
        **_window(depths=(2,), num_heads=(2,), upsampler="pixelshuffledirect", num_tokens=8)
    ),
}
"""Each network in its smallest form. Windowed ones upscale by two, which is faster here."""


def make(name: str, path: Path) -> Path:
    """Write the weights of a network, as its project does: ``{"params_ema": state}``."""
    torch.manual_seed(len(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about how networks compute constants
        network = NETWORKS[name]()
    if name == "span":  # made for values up to 255
        network.upsampler[0].weight.data.mul_(0.02)
    torch.save({"params_ema": network.state_dict()}, path)
    return path
