"""Generators of unusual shapes, with random weights."""

from __future__ import annotations

import torch
from conftest import TINY

from agsr.model.checkpoint import Checkpoint
from agsr.model.generator import Generator, GeneratorConfig

CONFIGS = {
    "tiny": TINY,
    "3x3 gates": GeneratorConfig(
        width=16, growth=4, gru_kernel=3, dense_blocks=1, mapping_pairs=1, mapping_width=4
    ),
    "odd widths": GeneratorConfig(
        width=5, growth=3, dense_layers=3, dense_blocks=2, mapping_width=7, mapping_pairs=2
    ),
    "several copies of the map": GeneratorConfig(
        width=48, growth=16, dense_layers=1, dense_blocks=1, gru_kernel=5, mapping_pairs=1
    ),
}
"""Shapes by what they try."""


def random_generator(config: GeneratorConfig, seed: int = 0) -> Generator:
    """Random weights, biases as large as the weights so that borders show."""
    torch.manual_seed(seed)
    generator = Generator(config).eval().requires_grad_(False)
    for parameter in generator.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return generator


def random_checkpoint(config: GeneratorConfig, seed: int = 0) -> Checkpoint:
    """The same as a checkpoint."""
    return Checkpoint(config=config, weights=random_generator(config, seed).state_dict())
