"""Networks of other projects as ONNX files: equal to torch, self-describing, run without torch."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from conftest import NEEDS_OPENVINO, PHOTO
from onnx_metadata import metadata_of
from PIL import Image

from agsr import Upscaler
from agsr.backend import Batch
from agsr.cli import main
from agsr.contract import ModelMetadata, Precision, SizeRule
from agsr.engines.community.backend import CommunityBackend
from agsr.engines.onnx_file.inspect import read_properties
from agsr.engines.runtimes.onnxruntime_backend import OrtBackend
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.errors import (
    BackendError,
    ExportError,
    ExportRequestError,
    ModelError,
)
from agsr.export import community, community_trace
from agsr.export.community import export_community

MakeFile = Callable[[str], Path]
Exported = Callable[..., Path]


def picture(height: int, width: int) -> Batch:
    values = np.random.default_rng(1).random((1, 3, height, width))
    return values.astype(np.float32)


SIZES = {
    "esrgan": SizeRule(minimum=2),
    "span": SizeRule(),
    "omnisr": SizeRule(minimum=16, multiple=8),
    "hat": SizeRule(minimum=16, multiple=8),
    "dat": SizeRule(minimum=16),
    "compact-x2": SizeRule(),
    "compact-grey": SizeRule(),
    "realplksr": SizeRule(),
    "swinir": SizeRule(minimum=16, multiple=8),
}
"""Sizes at which the exported graph equals torch; `scripts/community_table.py` covers more."""


@pytest.mark.parametrize("name", SIZES)
def test_file_equals_torch_at_other_sizes_than_traced(
    community_file: MakeFile, exported_onnx: Exported, name: str
) -> None:
    """On ONNX Runtime and OpenVINO, and padded alike where the network itself pads."""
    path = exported_onnx(name)
    metadata = metadata_of(path)
    assert metadata.sizes == SIZES[name]
    assert (metadata.steps, metadata.receptive_radius) == (None, None)
    runtimes = [OrtBackend, OpenVinoBackend] if NEEDS_OPENVINO.args[0] is False else [OrtBackend]
    with CommunityBackend(community_file(name)) as torch_backend:
        for runtime in runtimes:
            with runtime(path) as backend:
                assert backend.info.scale == torch_backend.info.scale == metadata.scale
                assert backend.info.weights_hash == torch_backend.info.weights_hash
                for size in ((24, 40), (56, 16)):
                    expected = torch_backend.upscale(picture(*size))
                    np.testing.assert_allclose(backend.upscale(picture(*size)), expected, atol=5e-5)
                assert backend.upscale(picture(3, 19)).shape[2:] == (
                    3 * metadata.scale,
                    19 * metadata.scale,
                )


@pytest.mark.parametrize("name", ["compact-x2", "realplksr", "swinir", "compact-rgba"])
def test_pictures_of_a_file_and_of_its_export_agree_within_one_level(
    community_file: MakeFile, exported_onnx: Exported, name: str
) -> None:
    """Whole and in tiles, which are blended for one of the networks."""
    rows, columns = np.indices((70, 90))
    noise = np.random.default_rng(0).normal(0, 10, (70, 90, 3))
    levels = 128 + 60 * np.sin(rows / 9 + columns / 14)[..., None] + noise
    photo = levels.clip(0, 255).astype(np.uint8)
    for tile in (0, 32):
        made = [
            Upscaler(str(weights), tile=tile, halo=8)(photo).astype(int)
            for weights in (community_file(name), exported_onnx(name))
        ]
        assert made[0].std() > 1
        assert np.abs(made[0] - made[1]).max() <= 1


def test_a_file_accepts_several_pictures_a_call_only_if_they_come_out_right(
    community_file: MakeFile, exported_onnx: Exported
) -> None:
    """A trace of windows holds the number of pictures."""
    pair = np.concatenate((picture(24, 40), picture(24, 40)[..., ::-1]))
    with OrtBackend(exported_onnx("swinir")) as backend, pytest.raises(BackendError):
        backend.upscale(pair)
    with (
        OrtBackend(exported_onnx("compact-x2")) as backend,
        CommunityBackend(community_file("compact-x2")) as expected,
    ):
        np.testing.assert_allclose(backend.upscale(pair), expected.upscale(pair), atol=5e-5)


class _Picky(torch.nn.Module):
    """Accepts only sizes of a rule, and doubles them."""

    def __init__(self, rule: SizeRule) -> None:
        super().__init__()
        self._rule = rule

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        size = int(lr.shape[2]), int(lr.shape[3])
        if self._rule.padded(*size) != size:
            raise ValueError(f"size {size}")
        return torch.nn.functional.interpolate(lr, scale_factor=2.0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SizeRule(multiple=48), SizeRule(multiple=48)),
        (SizeRule(minimum=70, multiple=20), SizeRule(minimum=80, multiple=20)),
        (SizeRule(multiple=48, square=True), SizeRule(fixed=(144, 144))),
    ],
)
def test_the_traced_size_is_one_that_the_network_accepts(
    rule: SizeRule, expected: SizeRule
) -> None:
    module = _Picky(rule)

    def exact(lr: Batch) -> Batch:
        return np.asarray(module(torch.from_numpy(lr)))

    traced = community_trace.trace(module, exact, rule, 18, 1e-3, "picky.pth")
    assert (traced.sizes, traced.exporter) == (expected, "torchscript")


def test_file_describes_itself(exported_onnx: Exported) -> None:
    properties = read_properties(exported_onnx("compact-x2"))
    assert properties["agsr.architecture"] == "RealESRGAN Compact"
    assert json.loads(properties["agsr.config"])["exporter"] == "torchscript"
    assert {"agsr.steps", "agsr.receptive_radius", "agsr.tiling"} & properties.keys() == set()
    assert metadata_of(exported_onnx("swinir")).tiling == "discouraged"
    assert metadata_of(exported_onnx("compact-x2")).bytes_per_pixel


def test_files_of_earlier_versions_are_read_as_they_are(onnx_file: Exported) -> None:
    metadata = metadata_of(onnx_file(1))
    assert (metadata.steps, metadata.architecture, metadata.sizes) == (1, "", SizeRule())
    for name in ("steps", "receptive_radius"):
        lacking = {k: v for k, v in metadata.to_properties().items() if k != f"agsr.{name}"}
        with pytest.raises(ModelError, match=rf"not exported by agsr: agsr\.{name} missing"):
            ModelMetadata.from_properties(lacking, "other.onnx")


@pytest.mark.parametrize(
    "change",
    [{"size_multiple": "0"}, {"size_fixed": "64"}, {"tiling": "twice"}, {"scale": "17"}],
)
def test_invalid_descriptions_are_refused(exported_onnx: Exported, change: dict[str, str]) -> None:
    properties = metadata_of(exported_onnx("compact-x2")).to_properties()
    properties |= {f"agsr.{name}": value for name, value in change.items()}
    with pytest.raises(ModelError, match=r"odd\.onnx"):
        ModelMetadata.from_properties(properties, "odd.onnx")


def test_metadata_survives_json(exported_onnx: Exported) -> None:
    """As in the sidecar of a TensorRT engine."""
    from dataclasses import asdict, replace

    metadata = replace(metadata_of(exported_onnx("compact-x2")), sizes=SizeRule(fixed=(8, 9)))
    assert ModelMetadata.from_dict(json.loads(json.dumps(asdict(metadata)))) == metadata


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@NEEDS_OPENVINO
def test_reduced_precision_is_inside_and_close(
    community_file: MakeFile, exported_onnx: Exported, precision: Precision
) -> None:
    path = exported_onnx("compact", precision)
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    expected = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    assert expected in kinds
    with (
        CommunityBackend(community_file("compact")) as exact,
        OpenVinoBackend(path, precision=precision) as reduced,
    ):
        difference = np.abs(exact.upscale(picture(24, 24)) - reduced.upscale(picture(24, 24)))
        assert difference.mean() < 0.01


def test_a_precision_that_the_architecture_lacks_is_refused(
    community_file: MakeFile, tmp_path: Path
) -> None:
    with pytest.raises(ExportRequestError, match="DAT doesn't support fp16; export it in fp32"):
        export_community(community_file("dat"), tmp_path / "a.onnx", precision="fp16")


def test_a_file_that_differs_too_much_is_not_written(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Black pictures, NaN and rounding alike."""
    target = tmp_path / "a.onnx"
    for wrong in (0.0, float("nan")):
        monkeypatch.setattr(
            community, "_run_exported", lambda *_, v=wrong: lambda lr: np.tile(lr, (4, 4)) * v
        )
        with pytest.raises(ExportError, match="the file differs from torch by"):
            export_community(community_file("compact"), target)
        assert not target.exists()


def test_a_network_without_dynamic_graph_is_exported_for_one_size(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger pictures are cut into tiles of that size, smaller ones padded."""
    monkeypatch.setattr(community_trace, "_dynamic_sizes", lambda *_: None)
    monkeypatch.setattr(community_trace, "FIXED", (64, 80))
    path = tmp_path / "fixed.onnx"
    report = export_community(community_file("compact"), path)
    assert report.metadata.sizes == SizeRule(fixed=(64, 80))
    assert read_properties(path)["agsr.size_fixed"] == "80x64"
    large = (picture(70, 90)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    with (
        Upscaler(str(path), backend="ort") as upscaler,
        Upscaler(str(community_file("compact"))) as whole,
    ):
        assert upscaler.info.largest == (64, 80)
        inside = slice(0, -40)  # at the lower and right border, mirrored pixels take part
        found, expected = (run(large)[inside, inside] for run in (upscaler, whole))
        np.testing.assert_allclose(found, expected, atol=1)
        assert upscaler(large[:5, :7]).shape == (20, 28, 3)


def test_a_network_that_no_exporter_can_is_refused_with_the_reasons(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operator\nand its trace")

    monkeypatch.setattr(community_trace, "_dynamo", fail)
    monkeypatch.setattr(community_trace, "_script", fail)
    with pytest.raises(
        ExportError, match=r"torchscript: no such operator; dynamo: no such operator; run it with"
    ):
        export_community(community_file("compact"), tmp_path / "a.onnx")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs to calibrate int8 on."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        corner = (number * 64, 40, number * 64 + 64, 104)
        Image.open(PHOTO).convert("RGB").crop(corner).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(("name", "scale"), [("compact-x1", 1), ("compact-x2", 2), ("span", 4)])
def test_int8_is_exported_at_any_scale_with_its_loss(
    community_file: MakeFile, photos: Path, tmp_path: Path, name: str, scale: int
) -> None:
    path = tmp_path / "a.onnx"
    report = export_community(community_file(name), path, precision="int8", calibrate=photos)
    assert report.operators["QuantizeLinear"] >= 2
    assert report.fidelity is not None
    assert report.fidelity.loss < 0.1
    with OrtBackend(path) as reduced, CommunityBackend(community_file(name)) as exact:
        found, expected = reduced.upscale(picture(9, 13)), exact.upscale(picture(9, 13))
        assert found.shape == (1, 3, 9 * scale, 13 * scale)
        assert 0 < np.abs(found - expected).mean() < 0.02


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("swinir", ExportError, "photographs of any size, and this one accepts"),
        ("compact-grey", ExportRequestError, "doesn't support int8"),
    ],
)
def test_int8_is_refused_with_the_reason(
    community_file: MakeFile,
    photos: Path,
    tmp_path: Path,
    name: str,
    error: type[Exception],
    reason: str,
) -> None:
    target = tmp_path / "a.onnx"
    with pytest.raises(error, match=reason):
        export_community(community_file(name), target, precision="int8", calibrate=photos)
    assert not target.exists()


def test_command_exports_a_file_by_its_kind(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(community_file("compact-x2"), "2x-tiny.pth")
    done = CliRunner().invoke(main, ["export", "-w", "2x-tiny.pth"])
    assert done.exit_code == 0, done.output
    assert "2x-tiny.onnx" in done.stdout
    assert "RealESRGAN Compact ×2, fp32" in done.stdout
    refused = CliRunner().invoke(main, ["export", "-w", "2x-tiny.pth", "--steps", "2"])
    assert refused.exit_code == 2
    assert "--steps is for networks of this project" in refused.stderr


def test_a_graph_that_no_runtime_loads_is_a_failure_of_its_exporter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    invalid = onnx.helper.make_model(
        onnx.helper.make_graph([onnx.helper.make_node("NoSuch", ["lr"], ["sr"])], "g", [], [])
    )
    for name in ("_script", "_dynamo"):
        monkeypatch.setattr(community_trace, name, lambda *_: invalid)
    with pytest.raises(ExportError, match=r"torchscript: .*; dynamo: .*; run it with --backend"):
        community_trace.trace(torch.nn.Identity(), lambda lr: lr, SizeRule(), 20, 1e-3, "x.pth")


def test_atd_is_exported_for_one_size_with_its_sorts_as_topk(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(community_trace, "_dynamic_sizes", lambda *_: None)
    for name in ("TRACED", "FIXED"):
        monkeypatch.setattr(community_trace, name, (16, 24))
    path = tmp_path / "atd.onnx"
    report = export_community(community_file("atd"), path)
    assert report.metadata.sizes == SizeRule(fixed=(16, 24))
    assert {"TopK", "Sort"} & report.operators.keys() == {"TopK"}
    with OrtBackend(path) as backend, CommunityBackend(community_file("atd")) as exact:
        exact.sizes = backend.sizes  # both pad alike
        expected = exact.upscale(picture(13, 24))
        np.testing.assert_allclose(backend.upscale(picture(13, 24)), expected, atol=3e-3)


@pytest.mark.parametrize("name", ["compact", "esrgan", "span", "realplksr", "swinir"])
def test_tensorrt_parses_and_builds_an_exported_file(exported_onnx: Exported, name: str) -> None:
    """Its profile has sizes that the network accepts."""
    pytest.importorskip("tensorrt_rtx")
    from agsr.engines.tensorrt.api import load_tensorrt
    from agsr.engines.tensorrt.builder import build_engine
    from agsr.engines.tensorrt.options import BuildOptions

    content = exported_onnx(name).read_bytes()
    engine, report = build_engine(load_tensorrt(), content, "a", BuildOptions(targets=("sm89",)))
    assert len(engine) == report.size
    multiple = report.metadata.sizes.multiple
    sides = [side for profile in report.options.profiles for side in profile.best[1:]]
    assert not [side for side in sides if side % multiple]


def test_an_export_restores_the_level_of_logging(
    community_file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    export_community(community_file("compact-x1"), tmp_path / "a.onnx")
    assert logging.root.manager.disable == logging.CRITICAL
