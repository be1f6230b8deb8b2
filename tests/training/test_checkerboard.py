"""Balancing the phases: a grid put into a network's last convolution is taken out of it again."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import tiny_checkpoint
from torch import Tensor

from agsr.errors import CheckpointError
from agsr.model.checkpoint import Checkpoint
from agsr.model.registry import build, make_config
from agsr.training.checkerboard import balance_phases
from agsr.training.losses import colour_shift, phase_shift

TINY = tiny_checkpoint()
RIDGE = 1e-4


def _patches(seed: int) -> Tensor:
    """LR patches of random colours with a little texture."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.rand(16, 3, 1, 1, generator=random)
    return colours + 0.1 * torch.rand(16, 3, 24, 24, generator=random)


def _repeated(lr: Tensor) -> Tensor:
    """The target: each LR pixel 4x4 times, as the network's global skip alone would give it."""
    return lr.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def _upscale(checkpoint: Checkpoint, lr: Tensor, steps: int = 4) -> Tensor:
    with torch.inference_mode():
        return checkpoint.build()(lr, steps)


def _grid(checkpoint: Checkpoint, lr: Tensor, steps: int) -> float:
    """Its strength, but for the border, where the convolutions see their zero padding."""
    inner = (..., slice(16, -16), slice(16, -16))
    return float(phase_shift(_upscale(checkpoint, lr, steps)[inner], _repeated(lr)[inner]))


def _with_a_grid() -> Checkpoint:
    """Its last convolution does nothing but shift phases, by amounts that depend on the content."""
    torch.manual_seed(1)
    weights = dict(TINY.weights)
    for name in ("upsample.weight", "upsample.bias"):
        weights[name] = 0.05 * torch.randn_like(weights[name])
    return dataclasses.replace(TINY, weights=weights, record={"seed": 1}, scores={"lpips": 1})


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_grid_of_unseen_patches_goes_at_any_step(steps: int) -> None:
    lr = _patches(0)
    balanced = balance_phases(_with_a_grid(), lr, _repeated(lr), RIDGE)
    unseen = _patches(1)
    before, after = (_grid(weights, unseen, steps) for weights in (_with_a_grid(), balanced))
    assert after < 0.01 * before


def test_local_colours_stay() -> None:
    lr = _patches(0)
    balanced = balance_phases(_with_a_grid(), lr, _repeated(lr), RIDGE)
    before, after = _upscale(_with_a_grid(), lr), _upscale(balanced, lr)
    assert (after - before).abs().max() > 0.01
    assert colour_shift(after, before) < 1e-5


def test_a_large_ridge_changes_texture_less() -> None:
    lr = _patches(0)
    hr = _repeated(lr)
    before = _upscale(_with_a_grid(), lr)
    changes = [
        (_upscale(balance_phases(_with_a_grid(), lr, hr, ridge), lr) - before).square().mean()
        for ridge in (1e-4, 1e-1, 1e2)
    ]
    assert changes[0] > changes[1] > changes[2]


def test_only_the_last_convolution_changes_and_the_scores_go() -> None:
    lr = _patches(0)
    balanced = balance_phases(_with_a_grid(), lr, _repeated(lr), RIDGE)
    changed = {n for n, v in balanced.weights.items() if not v.equal(_with_a_grid().weights[n])}
    assert changed == {"upsample.weight", "upsample.bias"}
    assert balanced.record == {"seed": 1}
    assert not balanced.scores


def test_what_cannot_be_balanced_is_rejected() -> None:
    lr = _patches(0)
    hr = torch.zeros(16, 3, 96, 96)
    with pytest.raises(ValueError, match="expected 16 or more"):
        balance_phases(TINY, lr[..., :15], hr[..., :60], RIDGE)
    with pytest.raises(ValueError, match="ridge is 0; expected more than 0"):
        balance_phases(TINY, lr, hr, 0)
    config = make_config("srcnn")
    other = Checkpoint(model="srcnn", config=config, weights=build("srcnn", config).state_dict())
    with pytest.raises(CheckpointError, match="found weights of 'srcnn', expected 'agsr'"):
        balance_phases(other, lr, hr, RIDGE)
