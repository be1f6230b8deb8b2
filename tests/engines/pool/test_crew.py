"""What all workers of a pool have in common: the backend that the first one chose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stubs import Repeat

from agsr.engines import ranking
from agsr.engines.pool.crew import comparable, settled
from agsr.engines.request import Request


def test_all_workers_run_in_the_precision_of_the_first_one(
    checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the precision that a named backend would choose is another one."""
    monkeypatch.setattr(ranking, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(ranking, "computes_bf16", lambda: True)
    weights = str(checkpoint_file)
    asked: dict[str, Any] = {"backend": "auto", "precision": None, "steps": 2}
    first = Request(weights=weights, **asked)
    runs = first.precision_at(first.place) or "fp32"
    info = replace(Repeat().info, name=first.place.runtime, precision=runs)
    other = Request(weights=weights, **settled(asked, info))
    assert other.place == first.place
    assert other.precision_at(other.place) == runs == "fp32"
    assert other.steps == 2


def test_a_chosen_backend_is_not_changed() -> None:
    info = replace(Repeat().info, name="ort", precision="fp16")
    for options in ({"backend": "torch"}, {"backend": "auto", "provider": "cuda"}):
        assert settled(options, info) == options


@pytest.mark.parametrize(
    "difference",
    [
        {"name": "ort"},
        {"precision": "bf16"},
        {"steps": 4},
        {"scale": 2},
        {"ensemble": 8},
        {"weights_hash": "b"},
    ],
)
def test_workers_whose_results_would_differ_are_not_comparable(difference: dict[str, Any]) -> None:
    info = replace(Repeat().info, weights_hash="a")
    assert comparable(replace(info, **difference)) != comparable(info)


def test_workers_on_other_devices_are_comparable() -> None:
    info = Repeat().info
    assert comparable(replace(info, device="cuda:1", reason="the next best")) == comparable(info)
