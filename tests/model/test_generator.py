from __future__ import annotations

import pytest
import torch
from conftest import TINY
from torch.utils.flop_counter import FlopCounterMode

from agsr.model.checkpoint import Checkpoint
from agsr.model.generator import Generator, GeneratorConfig


def test_default_network_stays_within_its_budget() -> None:
    generator = Generator().eval()
    assert sum(p.numel() for p in generator.parameters()) <= 700_000
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        generator(torch.zeros(1, 3, 18, 32), steps=4)
    macs_per_pixel = counter.get_total_flops() / 2 / (18 * 32)
    assert macs_per_pixel * 320 * 180 <= 60e9  # for a 1280x720 output


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (7, 5), (16, 16)])
def test_any_size_becomes_four_times_as_large(
    checkpoint: Checkpoint, size: tuple[int, int]
) -> None:
    generator = checkpoint.build()
    sr = generator(torch.rand(2, 3, *size), steps=2)
    assert sr.shape == (2, 3, 4 * size[0], 4 * size[1])


def test_every_step_is_the_network_with_that_many_steps(checkpoint: Checkpoint) -> None:
    generator, lr = checkpoint.build(), torch.rand(1, 3, 9, 11)
    outputs = generator.every_step(lr, 4)
    assert len(outputs) == 4
    for steps, output in enumerate(outputs, 1):
        torch.testing.assert_close(output, generator(lr, steps))
    for output, step in zip(generator.after_steps(lr, [2, 4]), (2, 4), strict=True):
        assert torch.equal(output, outputs[step - 1])
    assert (outputs[0] - outputs[3]).abs().max() > 1e-3  # the steps do something


def test_attention_maps_are_one_channel_in_the_unit_range(checkpoint: Checkpoint) -> None:
    maps = checkpoint.build().attention_maps(torch.rand(2, 3, 8, 6), 3)
    assert [m.shape for m in maps] == [(2, 1, 8, 6)] * 3
    assert all(m.min() >= 0 and m.max() <= 1 for m in maps)
    assert (maps[0] - maps[2]).abs().max() > 1e-4


def test_without_learned_detail_the_output_is_the_repeated_input(checkpoint: Checkpoint) -> None:
    generator = checkpoint.build()
    torch.nn.init.zeros_(generator.upsample.weight)
    torch.nn.init.zeros_(generator.upsample.bias)
    lr = torch.rand(1, 3, 3, 4)
    expected = lr.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(generator(lr, 2), expected)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("gru_kernel", [1, 3])
def test_a_pixel_reaches_as_far_as_the_receptive_radius(steps: int, gru_kernel: int) -> None:
    """Never further; with the default 1x1 gates exactly that far, so the halo is not wasteful."""
    torch.manual_seed(3)
    values = {**vars(TINY), "gru_kernel": gru_kernel}
    generator = Generator(GeneratorConfig(**values)).double().eval().requires_grad_(False)
    radius = generator.config.receptive_radius(steps)
    side, middle = 2 * radius + 7, radius + 3
    lr = torch.rand(1, 3, side, side, dtype=torch.float64)
    changed = lr.clone()
    changed[:, :, middle, middle] += 10
    difference = (generator(lr, steps) - generator(changed, steps)).abs().amax(dim=1)[0]
    touched = torch.nn.functional.max_pool2d(difference[None], 4)[0] > 0
    rows = touched.any(dim=1).nonzero().flatten()
    reach = max(middle - int(rows.min()), int(rows.max()) - middle)
    assert reach == radius if gru_kernel == 1 else 0 < reach <= radius


def test_bad_configurations_and_step_counts_are_rejected(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"GeneratorConfig\.width is 0"):
        GeneratorConfig(width=0)
    with pytest.raises(ValueError, match="expected odd"):
        GeneratorConfig(gru_kernel=2)
    with pytest.raises(ValueError, match="steps is 0"):
        checkpoint.build()(torch.rand(1, 3, 4, 4), steps=0)
