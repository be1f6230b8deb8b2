from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from agsr.datasets.pairs import Pair
from agsr.training.distributed import World
from agsr.training.patch_sampler import (
    DEGRADED_MARGIN,
    DegradingPatchBank,
    PatchBank,
    detail,
    make_bank,
    smallest_side,
)

BANKS = pytest.mark.parametrize("bank_type", [PatchBank, DegradingPatchBank])
CPU = torch.device("cpu")
ALONE = World(CPU)


def _coordinates(height: int = 40, width: int = 50) -> Pair:
    """LR pixels hold their own coordinates; HR pixels those of the LR pixel that covers them."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    lr = np.stack([y, x, y], axis=2)
    return Pair(hr=lr.repeat(4, axis=0).repeat(4, axis=1), lr=lr)


def _levels(patches: Tensor) -> Tensor:
    return (patches * 255).round().int()


@pytest.fixture
def no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Degraded patches without a fault: every fourth pixel of the HR patch."""
    monkeypatch.setattr("agsr.training.patch_sampler.degrade", lambda hr, _: hr[::4, ::4])


@BANKS
@pytest.mark.usefixtures("no_faults")
def test_patches_stay_aligned_through_every_symmetry(
    bank_type: type[PatchBank | DegradingPatchBank],
) -> None:
    bank = bank_type([_coordinates(), _coordinates(31, 70)], 1, ALONE)
    lr, hr = bank.batch(iteration=5, size=64, crop=6)
    assert lr.shape == (64, 3, 6, 6)
    assert hr.shape == (64, 3, 24, 24)
    assert lr.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(hr, lr.repeat_interleave(4, 2).repeat_interleave(4, 3))
    levels = _levels(lr)
    down, right = (
        levels[:, :2, 1, 0] - levels[:, :2, 0, 0],
        levels[:, :2, 0, 1] - levels[:, :2, 0, 0],
    )
    turns = {tuple(torch.cat([d, r]).tolist()) for d, r in zip(down, right, strict=True)}
    assert len(turns) == 8
    assert all(sorted(map(abs, turn)) == [0, 0, 1, 1] for turn in turns)
    assert len({p.numpy().tobytes() for p in lr}) > 50


def test_patches_reach_every_edge_of_every_image() -> None:
    bank = PatchBank([_coordinates(9, 8), _coordinates(7, 12)], 0, ALONE)
    levels = _levels(bank.batch(0, 2000, 6)[0])
    corners = {tuple(p[:2].flatten(1).min(1).values.tolist()) for p in levels}
    assert corners == {(y, x) for y in range(4) for x in range(3)} | {
        (y, x) for y in range(2) for x in range(7)
    }


@BANKS
def test_a_batch_depends_on_seed_and_iteration_alone(
    bank_type: type[PatchBank | DegradingPatchBank],
) -> None:
    pairs = [_coordinates()]
    first = bank_type(pairs, 1, ALONE).batch(7, 8, 6)[0]
    other = bank_type(pairs, 1, ALONE)
    other.batch(3, 8, 6)
    assert torch.equal(other.batch(7, 8, 6)[0], first)
    other.batch(6, 8, 6)  # begins the next one
    assert torch.equal(other.batch(7, 8, 6)[0], first)
    assert not torch.equal(bank_type(pairs, 2, ALONE).batch(7, 8, 6)[0], first)


@BANKS
def test_ranks_share_the_batch_of_one(bank_type: type[PatchBank | DegradingPatchBank]) -> None:
    pairs = [_coordinates()]
    whole = bank_type(pairs, 1, ALONE).batch(7, 8, 6)
    parts = [bank_type(pairs, 1, World(CPU, rank, 2)).batch(7, 8, 6) for rank in range(2)]
    for rank, part in enumerate(parts):
        assert all(torch.equal(p, w[rank::2]) for p, w in zip(part, whole, strict=True))


def test_batches_do_not_repeat_each_others_patches() -> None:
    lr = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    bank = PatchBank([Pair(hr=np.zeros((1200, 1200, 3), np.uint8), lr=lr)], 0, ALONE)
    patches = {p.numpy().tobytes() for i in range(40) for p in bank.batch(i, 16, 8)[0]}
    assert len(patches) > 630  # of 640; chance repeats one at most


def test_images_are_drawn_by_their_area() -> None:
    small = Pair(hr=np.zeros((64, 64, 3), np.uint8), lr=np.zeros((16, 16, 3), np.uint8))
    large = Pair(hr=np.full((128, 192, 3), 9, np.uint8), lr=np.full((32, 48, 3), 9, np.uint8))
    lr, _ = PatchBank([small, large], 0, ALONE).batch(0, 700, 8)
    assert (lr[:, 0, 0, 0] == 0).float().mean().item() == pytest.approx(1 / 7, abs=0.05)


def test_images_are_drawn_by_their_detail() -> None:
    """Two of one size: one has a texture, the other is almost flat."""
    random = np.random.default_rng(0)
    textured, smooth = (
        random.integers(100, 100 + levels, (64, 64, 3), np.uint8) for levels in (90, 10)
    )
    pairs = [Pair(lr=lr, hr=lr.repeat(4, axis=0).repeat(4, axis=1)) for lr in (textured, smooth)]
    bank = PatchBank(pairs, 0, ALONE)
    spread = torch.cat([bank.batch(i, 64, 8)[0].flatten(1).std(1) for i in range(16)])
    share = detail(textured) / (detail(textured) + detail(smooth))
    assert (spread > 0.05).float().mean() == pytest.approx(share, abs=0.03)
    assert 0.8 < share < 0.95


def test_a_flat_image_has_a_chance_too() -> None:
    flat = np.full((10, 20, 3), 7, np.uint8)
    assert detail(flat) == 2
    ramp = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None], (10, 20, 3))
    assert detail(np.ascontiguousarray(ramp)) == 10 * 19


@pytest.mark.usefixtures("no_faults")
def test_degraded_patches_reach_every_edge_and_start_anywhere_in_a_block() -> None:
    side = 6 + DEGRADED_MARGIN
    pair = _coordinates(side + 2, side)
    bank = DegradingPatchBank([pair], 0, ALONE)
    levels = torch.cat([_levels(bank.batch(i, 200, 6)[0]) for i in range(15)])
    corners = {tuple(p[:2].flatten(1).min(1).values.tolist()) for p in levels}
    assert corners == {
        (y, x) for y in range(DEGRADED_MARGIN + 3) for x in range(DEGRADED_MARGIN + 1)
    }


def test_each_patch_has_its_own_faults() -> None:
    flat = Pair(hr=np.full((96, 96, 3), 90, np.uint8), lr=np.full((24, 24, 3), 90, np.uint8))
    lr, hr = make_bank("photo", [flat], 0, ALONE).batch(0, 64, 8)
    assert torch.equal(hr, torch.full_like(hr, 90 / 255))
    noise = lr.flatten(1).std(1)
    assert (noise > 0).float().mean() > 0.2
    assert len(set(noise.tolist())) > 15
    assert isinstance(make_bank("bicubic", [flat], 0, ALONE), PatchBank)


def test_faults_differ_in_the_next_iteration() -> None:
    flat = Pair(hr=np.full((96, 96, 3), 90, np.uint8), lr=np.full((24, 24, 3), 90, np.uint8))
    bank = make_bank("photo", [flat], 0, ALONE)
    first, second = (bank.batch(iteration, 32, 8)[0] for iteration in (0, 1))
    noisy = (first.flatten(1).std(1) > 0) | (second.flatten(1).std(1) > 0)
    assert noisy.sum() > 8
    assert not any(torch.equal(a, b) for a, b in zip(first[noisy], second[noisy], strict=True))


@BANKS
def test_images_that_are_too_small_are_rejected(
    bank_type: type[PatchBank | DegradingPatchBank],
) -> None:
    bank = bank_type([_coordinates(30, 5)], 0, ALONE)
    with pytest.raises(ValueError, match="the smallest image has 5 LR pixels a side; expected"):
        bank.batch(0, 1, 6)


def test_degraded_patches_need_larger_images() -> None:
    assert smallest_side("bicubic", 12) == 48
    side = smallest_side("photo", 12)
    pair = _coordinates(side // 4, side // 4)
    assert make_bank("photo", [pair], 0, ALONE).batch(0, 4, 12)[0].shape == (4, 3, 12, 12)
