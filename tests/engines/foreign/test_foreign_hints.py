"""Hints about networks of others: what they mean, which are rejected, which messages name them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from foreign_graphs import node, repeat, repeated, repeating, save

from agsr.backend import Batch
from agsr.engines.foreign import ForeignBackend, Hints
from agsr.engines.foreign.probe import find_io_spec
from agsr.errors import BackendError, HintsError, ModelError
from agsr.export.verify import sample_batch

pytestmark = pytest.mark.processor

VALUES = {
    "order": "rgb or bgr",
    "channels": "1 or 3 or 4",
    "size": "WIDTHxHEIGHT, like 64x48",
    "multiple": "a number from 1",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "foreign.onnx"


@pytest.fixture
def lr() -> Batch:
    """Real pixels that are whole levels of 255."""
    return sample_batch(2, 19, 26)


def test_hints_are_read_from_words() -> None:
    assert Hints.parse("") == Hints()
    found = Hints.parse("order=bgr, input_peak=255,size=64x48")
    assert found == Hints(order="bgr", input_peak=255, size=(48, 64))
    wrongs = ("colour=red", "order=grb", "input_peak", "size=64", "multiple=x", "multiple=-1")
    for wrong in (*wrongs, "multiple=0", "input_peak=0", "channels=7", "size=0x0", "size=9x-9"):
        name, _, word = wrong.partition("=")
        expected = f"hint {name} is '{word}'; expected {VALUES.get(name, '1 or 255')}"
        if name == "colour":
            expected = "no hint named 'colour'; expected NAME=VALUE,... of layout, "
        with pytest.raises(HintsError, match=re.escape(expected)):
            Hints.parse(wrong)
    with pytest.raises(HintsError, match="hint square is given twice; remove one"):
        Hints.parse("square=yes,square=no")


@pytest.mark.parametrize(
    ("options", "hints", "reason"),
    [
        ({"size": (16, 24)}, "multiple=4", r"multiple has no effect: .* accepts 24x16 pixels only"),
        ({"size": (16, 24)}, "minimum=4", "minimum has no effect"),
        ({}, "size=24x16,square=yes", "square has no effect: the hint size names the only"),
        ({"kind": "uint8"}, "input_peak=1", "input_peak=1 has no effect: .* has uint8 there"),
        ({"kind": "uint8"}, "output_peak=1", "output_peak=1 has no effect"),
        ({"channels": 1}, "order=rgb", "order has no effect: .* takes luma, not colours"),
        ({"channels": 1}, "output_order=bgr", "output_order has no effect"),
    ],
)
def test_hints_without_effect_are_rejected(
    path: Path, options: dict[str, Any], hints: str, reason: str
) -> None:
    repeating(path, **options)
    with pytest.raises(HintsError, match=f"hint {reason}"):
        ForeignBackend(path, Hints.parse(hints))


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "HWC"},
        {"channels": 5},
        {"input_peak": 1023},
        {"output_peak": 0},
        {"order": "rbg"},
        {"size": (64,)},
        {"size": (64, 0)},
        {"size": (64.0, 64)},
        {"multiple": 0},
        {"minimum": 0},
        {"square": "yes"},
    ],
)
def test_hints_from_python_are_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"hint {next(iter(wrong))} is .*; expected"):
        Hints(**wrong)


def test_a_fourth_channel_that_is_not_returned_may_be_no_alpha(path: Path, lr: Batch) -> None:
    nodes = [  # as networks do that take a map of noise
        node("Slice", ["picture", "from", "to", "axis"], ["colours"]),
        repeat("colours"),
    ]
    bounds = {"from": np.array([0]), "to": np.array([3]), "axis": np.array([1])}
    save(path, nodes, ("b", 4, "h", "w"), **bounds)
    with pytest.raises(ModelError, match=r"map of noise.*if it is alpha, give the hint channels=4"):
        ForeignBackend(path)
    np.testing.assert_array_equal(ForeignBackend(path, Hints(channels=4)).upscale(lr), repeated(lr))


def test_a_picture_too_small_for_the_network_is_reported_with_the_hint(
    path: Path, lr: Batch
) -> None:
    pads = np.array([0, 0, 4, 4, 0, 0, 4, 4])
    nodes = [  # ONNX Runtime rejects a border wider than the picture
        node("Pad", ["picture", "pads"], ["large"], mode="reflect"),
        node("Slice", ["large", "four", "end", "axes"], ["same"]),
        repeat("same"),
    ]
    bounds = {"four": np.array([4, 4]), "end": np.array([-4, -4]), "axes": np.array([2, 3])}
    save(path, nodes, pads=pads, **bounds)
    backend = ForeignBackend(path)
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    with pytest.raises(BackendError, match="give --hints minimum=47"):
        backend.upscale(lr[..., :1, :1])
    hinted = ForeignBackend(path, Hints(minimum=47))
    np.testing.assert_array_equal(hinted.upscale(lr[..., :1, :1]), repeated(lr[..., :1, :1]))


def test_an_undeclared_size_can_be_given_as_a_hint(path: Path, lr: Batch) -> None:
    nodes = [node("Reshape", ["picture", "only"], ["same"]), repeat("same")]
    save(path, nodes, (1, 3, "h", "w"), only=np.array([1, 3, 20, 30], np.int64))
    with pytest.raises(ModelError, match="found no input format"):
        ForeignBackend(path)
    backend = ForeignBackend(path, Hints(size=(20, 30)))
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))


@pytest.mark.parametrize(
    ("hints", "shape"), [("minimum=40", (40, 40)), ("minimum=30,square=yes,multiple=9", (36, 36))]
)
def test_small_pictures_are_padded_by_hints(
    path: Path, lr: Batch, hints: str, shape: tuple[int, int]
) -> None:
    seen: list[tuple[int, ...]] = []
    backend = ForeignBackend(repeating(path), Hints.parse(hints))
    run = backend._session.run
    backend._session = SimpleNamespace(
        run=lambda n, f: seen.append(f["picture"].shape) or run(n, f)
    )
    np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert seen == [(2, 3, *shape)]


@pytest.mark.parametrize(
    ("kind", "hints", "runs"),
    [
        ("float32", "", 2),
        ("float32", "input_peak=1", 1),
        ("uint8", "", 1),
    ],
)
def test_the_network_is_probed_once_for_each_value_of_white(
    path: Path, kind: str, hints: str, runs: int
) -> None:
    backend = ForeignBackend(repeating(path, kind=kind), Hints.parse(hints))
    seen: list[Any] = []
    run = backend._probe
    found = find_io_spec(
        backend._session,
        lambda spec, values: seen.append(values) or run(spec, values),
        Hints.parse(hints),
        "x",
    )
    assert found == backend.io_spec
    assert len(seen) == runs
