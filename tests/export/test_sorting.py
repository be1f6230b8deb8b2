"""Sorts as ONNX has them: equal to torch's stable ones, for whole numbers with many equal ones."""

from __future__ import annotations

import pytest
import torch

from agsr.export.sorting import SortByTopK, StableSort


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_whole_numbers_are_sorted_stably(dim: int, descending: bool) -> None:
    values = torch.randint(-3, 4, (5, 40, 6), generator=torch.Generator().manual_seed(0))
    expected = torch.sort(values, dim=dim, descending=descending, stable=True)
    with SortByTopK():
        found = torch.sort(values, dim=dim, descending=descending, stable=False)
        again = values.argsort(dim, descending)
    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part, other)
    assert torch.equal(again, expected[1])


def test_a_reference_sorts_stably_with_either_call() -> None:
    values = torch.randint(0, 8, (1, 384), generator=torch.Generator().manual_seed(0))
    expected = torch.sort(values, stable=True)[1]
    with StableSort():
        found = (
            torch.sort(values, dim=-1, stable=False)[1],
            values.sort(-1, False)[1],
            torch.argsort(values, -1),
            values.argsort(),
        )
    assert all(torch.equal(expected, indices) for indices in found)


def test_fractions_are_sorted_and_other_functions_unchanged() -> None:
    values = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    with SortByTopK():
        found, indices = values.sort()
        total = values.sum()
    assert torch.equal(found, values.sort()[0])
    assert torch.equal(values.gather(1, indices), found)
    assert torch.equal(total, values.sum())
