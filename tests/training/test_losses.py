"""Equations (10) to (15) on numbers that can be followed by hand."""

from __future__ import annotations

import pytest
import torch

from agsr.training import losses

ZERO = torch.zeros(1, 3, 4, 4)


def test_l1_is_the_mean_absolute_error() -> None:
    assert losses.l1(ZERO + 0.25, ZERO - 0.5).item() == 0.75


def test_stepwise_weighs_the_steps() -> None:
    outputs = [ZERO + 1, ZERO - 3]
    assert losses.stepwise(losses.l1, outputs, ZERO).item() == 2
    assert losses.stepwise(losses.l2, outputs, ZERO).item() == 5
    halved = losses.stepwise(losses.l1, outputs, ZERO, decay=0.5)
    assert halved.item() == pytest.approx((0.5 * 1 + 3) / 1.5)
    assert losses.stepwise(losses.l1, outputs, ZERO, decay=0).item() == 3
    assert losses.stepwise(losses.l1, outputs[:1], ZERO, decay=0.5).item() == 1


def test_without_its_weights_the_generator_loss_is_the_printed_one() -> None:
    pixel, fake, perceptual = torch.tensor(0.3), torch.tensor(5.0), torch.tensor(7.0)
    printed = losses.generator_loss(
        pixel, fake, perceptual, adversarial_weight=0, perceptual_weight=0
    )
    assert printed == pixel
    full = losses.generator_loss(
        pixel, fake, perceptual, adversarial_weight=0.1, perceptual_weight=0.01
    )
    assert full.item() == pytest.approx(0.3 + 0.5 + 0.07)


def test_colour_shift_sees_areas_and_not_texture() -> None:
    random = torch.rand(1, 3, 64, 64)
    mirrored = random.view(1, 3, 4, 16, 4, 16).flip(3, 5).reshape(1, 3, 64, 64)
    assert losses.colour_shift(random, mirrored).item() == pytest.approx(0, abs=1e-6)
    assert losses.colour_shift(random, random + 0.25).item() == pytest.approx(0.25)


def test_phase_shift_sees_a_grid_and_neither_texture_nor_colour() -> None:
    grid = torch.rand(1, 3, 4, 4).tile(1, 1, 16, 16)
    texture = torch.rand(1, 3, 64, 64)
    seen = losses.phase_shift(grid, torch.zeros_like(grid)).item()
    assert seen == pytest.approx((grid - grid.mean((2, 3), keepdim=True)).abs().mean().item())
    assert losses.phase_shift(grid + texture, texture).item() == pytest.approx(seen, abs=1e-6)
    assert losses.phase_shift(texture + 0.25, texture).item() == pytest.approx(0, abs=1e-6)
    # The same LR pixels in another order: the error is large everywhere, but not on average.
    shuffled = texture.view(1, 3, 2, 8, 4, 64).flip(3).reshape(1, 3, 64, 64)
    assert losses.phase_shift(shuffled, texture).item() == pytest.approx(0, abs=1e-6)


def test_phase_shift_accepts_patches_smaller_than_its_squares() -> None:
    grid = torch.eye(4).tile(1, 3, 1, 2)
    assert losses.phase_shift(grid, torch.zeros_like(grid)).item() == pytest.approx(0.375)


def test_discriminator_loss_weighs_generated_images_by_k() -> None:
    real, fake = torch.tensor(0.5), torch.tensor(0.2)
    assert losses.discriminator_loss(real, fake, torch.tensor(0.0)) == real
    assert losses.discriminator_loss(real, fake, torch.tensor(1.0)).item() == pytest.approx(0.3)


def test_k_rises_while_generated_images_are_too_easy_and_stays_in_its_range() -> None:
    def step(k: float, real: float, fake: float) -> float:
        values = (torch.tensor(v) for v in (k, real, fake))
        return losses.next_balance(*values, gamma=0.5, rate=0.1).item()

    assert step(0.5, 1.0, 0.5) == 0.5  # L_Df / L_Dr is γ: eq. (15) holds
    assert step(0.5, 1.0, 0.3) == pytest.approx(0.52)
    assert step(0.5, 1.0, 0.7) == pytest.approx(0.48)
    assert step(0.0, 1.0, 9.0) == 0
    assert step(1.0, 9.0, 0.0) == 1


def test_convergence_is_least_in_balance() -> None:
    def measure(real: float, fake: float) -> float:
        return losses.convergence(torch.tensor(real), torch.tensor(fake), gamma=0.5).item()

    assert measure(0.4, 0.2) == pytest.approx(0.4)
    assert measure(0.4, 0.3) == pytest.approx(0.5)
    assert measure(0.4, 0.1) == pytest.approx(0.5)
