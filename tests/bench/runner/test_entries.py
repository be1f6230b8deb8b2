from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import small_baseline

from agsr.bench.data.sets import find_set
from agsr.bench.runner import entries
from agsr.bench.runner.entries import BICUBIC, Bicubic, Entry, expand
from agsr.bench.runner.plan import Workload
from agsr.bench.runner.run import reference_of
from agsr.bicubic import upscale
from agsr.engines.places import Place
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ModelError
from agsr.model.checkpoint import save_checkpoint


def test_every_combination_is_there_once_and_bicubic_first() -> None:
    found = expand(
        backends=["ort", "torch"], weights=["psnr", "gan"], steps=[1, 4], precisions=["fp32"]
    )
    assert found[0] == Entry(backend=BICUBIC)
    assert len(found) == 1 + 2 * 2 * 2
    assert {(c.backend, c.weights, c.steps) for c in found[1:]} == {
        (backend, weights, steps)
        for backend in ("ort", "torch")
        for weights in ("psnr", "gan")
        for steps in (1, 4)
    }


def test_step_counts_are_for_checkpoints_while_graphs_have_their_own() -> None:
    found = expand(backends=["torch", "ort"], weights=["a.onnx", "b.safetensors"], steps=[1, 2])
    steps = {(c.weights, c.steps) for c in found if c.is_network}
    assert steps == {("a.onnx", None), ("b.safetensors", 1), ("b.safetensors", 2)}
    assert len(found) == 1 + 2 * (1 + 2)


def test_precisions_are_for_models_of_others_too_and_each_is_there_once() -> None:
    backends = ["ort", "openvino", "ort", "torch"]
    found = expand(backends=backends, weights=[], precisions=["fp32", "bf16"], models=["m.onnx"])
    assert [(c.backend, c.precision) for c in found if c.foreign] == [
        (backend, precision) for backend in ("ort", "openvino") for precision in ("fp32", "bf16")
    ]


def test_labels_are_unique() -> None:
    found = expand(
        backends=["ort", "openvino", "torch", "trt"],
        weights=["psnr", "gan", "a/own.onnx", "b/own.onnx", "own.safetensors"],
        steps=[1, 2],
        precisions=["fp32", "bf16"],
    )
    labels = [entry.label for entry in found]
    assert len(set(labels)) == len(labels)
    assert labels[0] == "bicubic"
    assert "openvino psnr 2 steps bf16" in labels
    assert "torch own.safetensors 1 step fp32" in labels


def test_threads_reach_onnx_runtime() -> None:
    assert Entry(backend="ort", weights="psnr", steps=1, threads=1).open().info.steps == 1


@pytest.mark.parametrize(
    ("backend", "threads", "device"),
    [
        ("ort", 3, None),
        ("openvino", 3, None),
        ("auto", 3, None),
        ("ort:cuda", None, "cuda:0"),
        ("ort:cuda:1", None, "cuda:1"),
        ("ort:tensorrt-rtx", None, "cuda:0"),
        ("trt", None, None),
        ("trt:cuda:1", None, "cuda:1"),
        ("torch:cuda", None, "cuda"),
    ],
)
def test_threads_are_for_the_cpu_and_devices_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, backend: str, threads: int | None, device: str | None
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(entries, "open_backend", lambda *_, **options: asked.update(options))
    (entry,) = expand(backends=[backend], weights=["psnr"], steps=[1], threads=3)[1:]
    entry.open()
    assert (asked["threads"], asked["device"]) == (threads, device)
    assert asked["provider"] == (Place.parse(backend).kind if "ort" in backend else None)
    with monkeypatch.context() as patch:
        given: dict[str, Any] = {}
        patch.setattr(entries, "ForeignBackend", lambda *_, **options: given.update(options))
        replace(entry, foreign=True).open()
        assert given["threads"] == threads


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    save_checkpoint(small_baseline("srcnn"), tmp_path / "srcnn.safetensors")
    with pytest.raises(BackendError, match="no backend named 'magic'"):
        Entry(backend="magic", weights="psnr", steps=1).open()
    with pytest.raises(ModelError, match="make an ONNX file with: agsr export"):
        Entry(backend="ort", weights=str(tmp_path / "srcnn.safetensors"), steps=1).open()


@pytest.mark.parametrize("backend", ["openvino:GPU", "trt:0", "auto:cpu", "ort:tpu"])
def test_a_place_that_a_backend_lacks_is_rejected(backend: str) -> None:
    with pytest.raises(BackendError, match=f"no backend '{backend}'"):
        expand(backends=[backend], weights=["psnr"])


@pytest.mark.parametrize("channels", [1, 3])
def test_bicubic_is_that_of_every_table(channels: int) -> None:
    shape = (23, 31, 3)[: 2 + channels // 3]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    levels = Upscaler(backend=Bicubic())(image.astype(np.float32) / np.float32(255)) * 255
    assert np.array_equal((levels + np.float32(0.5)).astype(np.uint8), upscale(image))
    assert np.array_equal(Upscaler(backend=Bicubic())(image), upscale(image))


def test_reference_is_fp32_of_the_same_weights_and_steps() -> None:
    assert reference_of(Entry(backend=BICUBIC)) is None
    listed = Entry(backend="torch", weights="psnr", steps=2, precision="fp32")
    for backend, precision in (("trt", "fp16"), ("openvino", "bf16"), ("torch", "fp32")):
        other = Entry(backend=backend, weights="psnr", steps=2, precision=precision)
        assert reference_of(other) == listed
    plain = Entry(backend="ort", weights="psnr", steps=2)
    assert reference_of(plain) == Entry(backend="torch", weights="psnr", steps=2)
    graph = Entry(backend="openvino", weights="own.onnx", precision="bf16")
    assert reference_of(graph) == Entry(backend="ort", weights="own.onnx", precision="fp32")


def test_workloads_are_named_by_width_first_and_grey_images_have_three_planes(
    tmp_path: Path,
) -> None:
    workload = Workload.of_size((18, 32), batch=2)
    assert (workload.name, workload.images, workload.output_pixels) == (
        "2x32x18",
        2,
        2 * 18 * 32 * 16,
    )
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 48), 51, np.uint8))
    of_set = Workload.of_set(find_set(str(tmp_path)))
    assert of_set.batches[0].shape == (1, 3, 10, 12)
    assert of_set.batches[0].dtype == np.float32
    assert np.all(of_set.batches[0] == np.float32(0.2))
    assert (of_set.name, of_set.images, of_set.output_pixels) == (tmp_path.name, 1, 40 * 48)
