"""The memory limit while a network is built holds for every operator, and before it allocates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from agsr.engines.community import allocation
from agsr.engines.community.allocation import limited_allocation
from agsr.errors import ModelError

SIDE = 1 << 22
MANY = SIDE * SIDE

OPERATORS: dict[str, Callable[[], object]] = {
    "zeros": lambda: torch.zeros(MANY),
    "full": lambda: torch.full((SIDE, SIDE), 1.0),
    "randn": lambda: torch.randn(SIDE, SIDE),
    "arange": lambda: torch.arange(MANY),
    "linspace": lambda: torch.linspace(0, 1, MANY),
    "eye": lambda: torch.eye(SIDE),
    "hann_window": lambda: torch.hann_window(MANY),
    "new_zeros": lambda: torch.zeros(1).new_zeros(MANY),
    "repeat": lambda: torch.zeros(1).repeat(MANY),
    "tile": lambda: torch.zeros(1, 1).tile(SIDE, SIDE),
    "expand": lambda: torch.zeros(1).expand(MANY).clone(),
    "contiguous": lambda: torch.zeros(1).expand(MANY).contiguous(),
    "broadcast": lambda: torch.zeros(SIDE, 1) + torch.zeros(1, SIDE),
    "matmul": lambda: torch.zeros(SIDE, 1) @ torch.zeros(1, SIDE),
    "pad": lambda: torch.nn.functional.pad(torch.zeros(1, 1), (0, SIDE, 0, SIDE)),
    "cat": lambda: torch.cat([torch.zeros(1).expand(MANY)] * 2),
    "resize": lambda: torch.zeros(1).resize_(MANY),
    "bincount": lambda: torch.bincount(torch.tensor([1 << 40])),
    "many small ones": lambda: [torch.zeros(1 << 18) for _ in range(9)],
}


@pytest.mark.parametrize("name", OPERATORS)
def test_no_operator_allocates_beyond_the_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "SPARE_BYTES", 8 << 20)
    with (
        pytest.raises(ModelError, match=r"x\.pth: its shapes ask for more than 8 times"),
        limited_allocation(100, "x.pth"),
    ):
        OPERATORS[name]()


def test_released_tensors_and_views_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "SPARE_BYTES", 8 << 20)
    with limited_allocation(100, "x.pth"):
        for _ in range(20):
            values = torch.zeros(1 << 19)
            assert values.expand(9, 1 << 19)[0].nonzero().numel() == 0
