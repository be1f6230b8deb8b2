"""Another project's network is checked on one tile wherever it runs, and this project's never."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import Repeat
from foreign_graphs import node, repeat, repeating, save
from onnx import TensorProto

from agsr.backend import Backend, Batch
from agsr.engines import trusted as trusted_module
from agsr.engines.community.measurements import place_of
from agsr.engines.open import open_backend
from agsr.engines.places import Place
from agsr.engines.request import Request
from agsr.errors import BackendError

Act = Callable[[Batch], Batch]


def _black(sr: Batch) -> Batch:
    return 0 * sr


def _empty(sr: Batch) -> Batch:
    return sr + np.float32("nan")


def _off(sr: Batch) -> Batch:
    return sr * np.float32(0.9)


class Other(Repeat):
    """Another project's network, whose result depends on the precision."""

    def __init__(self, precision: str, acts: dict[str, Act]) -> None:
        super().__init__()
        self._act = acts.get(precision)
        self.info = replace(
            self.info, precision=precision, receptive_radius=None, architecture="DAT"
        )
        self.info = replace(self.info, weights_hash="a", steps=None)

    def _run(self, lr: Batch) -> Batch:
        sr = super()._run(lr)
        return sr if self._act is None else self._act(sr)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "other.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr("agsr.engines.community.exported.exported_file", lambda path, *_: path)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Act]], list[Other]]:
    """Let exports open as `Other`; returns those that were opened."""

    def install(acts: dict[str, Act]) -> list[Other]:
        found: list[Other] = []

        def load(
            _request: Any, _path: Path, _place: Any, precision: str | None, *_: Any
        ) -> Backend:
            found.append(Other(precision or "fp32", acts))
            return found[-1]

        monkeypatch.setattr("agsr.engines.open._open_exported", load)
        monkeypatch.setattr(
            "agsr.engines.runtimes.onnxruntime_backend.OrtBackend", lambda _: Other("fp32", {})
        )
        return found

    return install


@pytest.mark.parametrize(
    ("act", "reason"),
    [(_black, "gives a black picture"), (_empty, "fails: "), (_off, "differs from fp32 by")],
)
def test_the_next_precision_runs_where_a_reduced_one_fails(
    weights: Path,
    opened: Callable[..., list[Other]],
    caplog: pytest.LogCaptureFixture,
    act: Act,
    reason: str,
) -> None:
    tried = opened({"fp16": act})
    with open_backend("trt", str(weights), precision="fp16") as backend:
        assert backend.info.precision == "bf16"
    assert tried[0].closed
    assert f"fp16 {reason}" in caplog.text
    assert "running in bf16 instead" in caplog.text


def test_without_another_precision_it_is_an_error(
    weights: Path, opened: Callable[..., list[Other]], caplog: pytest.LogCaptureFixture
) -> None:
    tried = opened({"fp16": _black, "bf16": _black, "fp32": _empty})
    with open_backend("trt", str(weights), precision="fp16") as backend:
        assert backend.info.precision == "fp32"  # its first picture shows what is wrong
    assert [(other.info.precision, other.closed) for other in tried] == [
        ("fp16", 1),
        ("bf16", 1),
        ("fp32", 1),
    ]
    (message,) = (record.getMessage() for record in caplog.records if record.levelno > logging.INFO)
    assert message == f"{weights}: fp16 gives a black picture; running in fp32 instead"
    file = weights.with_suffix(".onnx")
    repeating(file, scale=2, kind="float16")
    with pytest.raises(BackendError, match="export its network in fp32"):
        trusted_module.trusted(
            Request(weights=str(file)), Place("trt"), file, Other("fp16", {"fp16": _black}), _no
        )


def _no(*_: Any) -> Backend:
    raise BackendError("no other precision")


def test_a_network_that_passed_is_not_checked_again(
    weights: Path, opened: Callable[..., list[Other]]
) -> None:
    tried = opened({})
    for _ in range(2):
        open_backend("trt", str(weights), precision="fp16").close()
    assert [len(backend.shapes) for backend in tried] == [1, 0]
    open_backend("trt", str(weights), precision="bf16").close()
    assert len(tried[-1].shapes) == 1


@pytest.mark.parametrize("changed", ["file", "agsr", "runtime"])
def test_what_passed_is_checked_again_in_another_file_or_version(
    weights: Path,
    opened: Callable[..., list[Other]],
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
) -> None:
    tried = opened({})
    open_backend("trt", str(weights), precision="fp16").close()
    if changed == "file":
        weights.write_bytes(b"exported again")
    if changed == "agsr":
        monkeypatch.setattr("agsr.engines.community.measurements.__version__", "next")
    if changed == "runtime":
        monkeypatch.setattr("agsr.engines.community.measurements._version", lambda _: "next")
    open_backend("trt", str(weights), precision="fp16").close()
    assert [len(backend.shapes) for backend in tried] == [1, 1]


def test_the_version_of_the_runtime_is_that_of_its_module() -> None:
    info = replace(Other("fp32", {}).info, name="ort", device="CPU")
    assert place_of(info) == f"ort {onnxruntime.__version__} CPU"


def test_exchanged_colours_are_warned_of(
    weights: Path, opened: Callable[..., list[Other]], caplog: pytest.LogCaptureFixture
) -> None:
    opened({"fp32": lambda sr: sr[:, ::-1].copy()})
    with caplog.at_level(logging.WARNING, logger="agsr"):
        open_backend("ort", str(weights)).close()
    assert "red and blue of a test picture are exchanged" in caplog.text


def test_a_foreign_file_in_half_precision_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    checked: list[Any] = []

    def note(_found: Batch, expected: Batch | None) -> str:
        checked.append(expected)
        return ""

    monkeypatch.setattr(trusted_module, "fault", note)
    path, same = tmp_path / "half.onnx", np.eye(3, dtype=np.float16).reshape(3, 3, 1, 1)
    nodes = [
        node("Cast", ["picture"], ["half"], to=TensorProto.FLOAT16),
        node("Conv", ["half", "same"], ["kept"]),
        node("Cast", ["kept"], ["wide"], to=TensorProto.FLOAT),
        repeat("wide", "enlarged"),
    ]
    save(path, nodes, same=same)
    open_backend("ort", str(path)).close()
    assert checked == [None]  # ONNX Runtime on the CPU is the reference itself


def test_shipped_weights_are_not_run_before_their_first_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agsr.engines.trusted.trusted", None)
    monkeypatch.setattr(Backend, "upscale", None)
    open_backend("ort", "psnr", steps=1).close()
