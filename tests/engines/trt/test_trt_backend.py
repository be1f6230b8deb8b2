"""The TensorRT backend on the stand-in for a GPU of `fake_gpu`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from fake_gpu import FakeCuda, FakeEngine, fake_module
from fake_trt import METADATA, SMALL, Make, batches, maker, repeated
from numpy.typing import NDArray

from agsr.contract import Precision, SizeRule
from agsr.engines.open import open_backend
from agsr.engines.tensorrt import api, engine_file, engine_source
from agsr.engines.tensorrt import backend as trt_backend
from agsr.engines.tensorrt.api import TensorRt
from agsr.engines.tensorrt.backend import TrtBackend
from agsr.engines.tensorrt.engine_cache import EngineCache
from agsr.engines.tensorrt.options import BuildOptions, Profile
from agsr.engines.upscaler import Upscaler
from agsr.errors import BackendError, ModelError


def test_many_batches_overlap_and_come_out_in_order(make: Make, cuda: FakeCuda) -> None:
    shapes = [(1, 8, 8), (2, 24, 32), (1, 20, 9), (1, 24, 32), (2, 8, 30), (1, 8, 8), (1, 9, 9)]
    given = list(batches(*shapes))
    with make() as backend:
        for lr, sr in zip(given, backend.upscale_many(iter(given)), strict=True):
            np.testing.assert_array_equal(sr, repeated(lr))
        assert cuda.most_under_way == 2
        assert cuda.memory
    assert cuda.depth == 0


def test_closing_releases_everything(make: Make, cuda: FakeCuda) -> None:
    assert cuda.graphs is not None
    backend = make()
    for _ in range(3):
        list(backend.upscale_many(batches((1, 8, 8), (1, 9, 9))))
    assert cuda.graphs.graphs
    for _ in range(2):
        backend.close()
    left = (cuda.memory, cuda.streams, cuda.events, cuda.graphs.graphs)
    assert [len(things) for things in left] == [0] * 4
    assert (cuda.pinned_arrays, cuda.depth) == (0, 0)
    with pytest.raises(BackendError, match="this backend is closed"):
        backend.upscale(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_engines_of_any_scale_run(make: Make, engine: FakeEngine, scale: int) -> None:
    engine.scale = scale
    with make() as backend:
        assert backend.info.scale == scale
        assert backend.bytes_per_pixel == 2 * (12 + 12 * scale**2)  # inputs and outputs, float32
        given = list(batches((1, 9, 11), (2, 16, 17), (1, 3, 5)))
        for lr, sr in zip(given, backend.upscale_many(given), strict=True):
            np.testing.assert_array_equal(sr, lr.repeat(scale, axis=2).repeat(scale, axis=3))


def test_a_graph_in_memory_is_built_under_the_name_of_its_file(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[bytes, str]] = []
    build = engine_source.build_engine

    def record(trt: TensorRt, onnx: bytes, source: str, *rest: Any) -> Any:
        built.append((onnx, source))
        return build(trt, onnx, source, *rest)

    monkeypatch.setattr(engine_source, "build_engine", record)
    with make(content=b"adapted") as backend:
        assert built == [(b"adapted", backend.info.model)]


def test_results_are_the_callers_own(make: Make) -> None:
    (first, second) = batches((1, 8, 8), (1, 8, 8))
    with make() as backend:
        kept = backend.upscale(first)
        backend.upscale(second)
        np.testing.assert_array_equal(kept, repeated(first))
        assert kept.flags.owndata


def test_small_inputs_are_padded_into_the_profile(make: Make, engine: FakeEngine) -> None:
    (lr,) = batches((1, 3, 5))
    with make() as backend:
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert engine.shapes == [(1, 3, 8, 8)]


def test_the_profile_with_the_least_padding_is_used(make: Make, engine: FakeEngine) -> None:
    wide = Profile((1, 16, 64), (1, 16, 64), (1, 32, 128))
    options = BuildOptions(profiles=(wide, *SMALL.profiles))
    with make(options) as backend:
        for lr in batches((1, 8, 8), (1, 17, 100), (1, 24, 32)):
            np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
    assert engine.shapes == [(1, 3, 8, 8), (1, 3, 17, 100), (1, 3, 24, 32)]
    assert engine.contexts[0].active_optimization_profile == 1


def test_beyond_every_profile_the_upscaler_cuts_tiles(
    make: Make, engine: FakeEngine, photo: NDArray[np.uint8]
) -> None:
    with make() as backend:
        with pytest.raises(BackendError, match=r"outside the engine's profiles .*smaller --tile"):
            backend.upscale(np.zeros((1, 3, 25, 32), np.float32))
        assert backend.info.largest == (24, 32)
        for tile in ("auto", 0, 999):
            upscaler = Upscaler(backend=backend, tile=tile, halo=4)
            expected = photo.repeat(4, axis=0).repeat(4, axis=1)
            np.testing.assert_array_equal(upscaler(photo), expected)
        assert all(h <= 24 and w <= 32 for _, _, h, w in engine.shapes)
        with pytest.raises(BackendError, match="too few for a halo of 12"):
            Upscaler(backend=backend, halo=12)(photo)


OF_OTHERS = replace(METADATA, receptive_radius=None, architecture="DAT")


def test_aligned_windows_fit_into_the_profile(make: Make) -> None:
    """They start at multiples of 16, and none is larger than the engine accepts."""
    options = BuildOptions(profiles=(Profile((1, 8, 8), (1, 64, 64), (1, 80, 112)),))
    image = np.random.default_rng(0).integers(0, 256, (211, 301, 3), np.uint8)
    with make(options, metadata=OF_OTHERS) as backend:
        assert backend.tile_align == 16
        for tile in ("auto", 64, 90):
            large = Upscaler(backend=backend, tile=tile, halo=8)(image)
            np.testing.assert_array_equal(large, image.repeat(4, axis=0).repeat(4, axis=1))
        with pytest.raises(BackendError, match="in tiles that start at multiples of 16; use a"):
            Upscaler(backend=backend, halo=32)(image)


def test_windows_of_this_projects_engines_start_anywhere(make: Make) -> None:
    with make() as backend:
        assert backend.tile_align == 1


def test_the_largest_input_of_an_engine_is_a_multiple_that_the_network_accepts(make: Make) -> None:
    profiles = (
        Profile((1, 8, 8), (1, 64, 64), (1, 84, 116)),
        Profile((1, 8, 8), *[(1, 16, 16)] * 2),
    )
    metadata = replace(OF_OTHERS, sizes=SizeRule(multiple=16))
    with make(BuildOptions(profiles=profiles), metadata=metadata) as backend:
        assert backend.info.largest == (80, 112)


def test_an_abandoned_pipeline_is_drained(make: Make, cuda: FakeCuda) -> None:
    given = list(batches((1, 8, 8), (1, 9, 9), (1, 10, 10), (1, 11, 11)))
    with make() as backend:
        next(backend.upscale_many(iter(given)))
        assert cuda.depth == 0
        np.testing.assert_array_equal(backend.upscale(given[2]), repeated(given[2]))


def test_info_describes_what_runs(make: Make) -> None:
    with make() as backend:
        info = backend.info
    assert (info.name, info.device) == ("trt", "Fake GPU (tensorrt 11.4)")
    assert (info.precision, info.steps, info.receptive_radius) == ("fp16", 4, 3)


def _engine_file(path: Path, precision: Precision = "fp16", **facts: object) -> Path:
    """An engine file with its sidecar; options and facts of its report as given."""
    profile = {"smallest": [1, 8, 8], "best": [1, 8, 8], "largest": [1, 9, 9]}
    report = {
        "metadata": asdict(replace(METADATA, precision=precision)),
        "options": {"profiles": [profile], "version_compatible": facts.pop("compatible", False)},
        **facts,
    }
    sidecar = {
        "format": engine_file.FORMAT,
        "sha256": hashlib.sha256(b"engine").hexdigest(),
        "report": report,
    }
    path.write_bytes(b"engine")
    path.with_name(path.name + ".json").write_text(json.dumps(sidecar))
    return path


@pytest.mark.parametrize("compatible", [True, False])
def test_only_version_compatible_engines_may_run_host_code(
    make: Make, engine: FakeEngine, tmp_path: Path, compatible: bool
) -> None:
    path = _engine_file(tmp_path / "made.engine", compatible=compatible)
    make(path=path).close()
    assert engine.host_code_allowed is compatible


@pytest.mark.parametrize(
    ("precision", "facts", "warned"),
    [
        ("fp32", {}, True),
        ("fp32", {"tf32": True}, True),
        ("fp32", {"tf32": False}, False),
        ("fp16", {}, False),
        ("int8", {"tf32": True}, False),
    ],
)
def test_an_fp32_engine_that_may_compute_in_tf32_is_reported(
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    precision: Precision,
    facts: dict[str, object],
    warned: bool,
) -> None:
    make(path=_engine_file(tmp_path / "made.engine", precision, **facts)).close()
    assert ("may compute in TF32; rebuild it with: agsr build" in caplog.text) is warned


def test_each_gpu_has_its_own_engine(
    engine: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Other(FakeCuda):
        gpu, capability = "Other GPU", "9.0"

    opened: list[int] = []
    gpus = [FakeCuda(), Other()]
    gpus[0].graphs, gpus[0].name = None, "pycuda"  # it has none
    maker(gpus[0], engine, tmp_path, monkeypatch)
    monkeypatch.setattr(trt_backend, "check_driver", lambda: None)
    monkeypatch.setattr(trt_backend, "open_cuda", lambda i: (opened.append(i), gpus[i])[1])
    for index in (0, 1, 1):
        backend = TrtBackend(
            tmp_path / "model.onnx",
            options=SMALL,
            cache=EngineCache(tmp_path / "cache"),
            trt=TensorRt(fake_module(engine), "tensorrt"),
            device=index,
        )
        backend.close()
        assert backend.info.device.startswith("cuda:1 Other GPU (" if index else "Fake GPU (")
    assert opened == [0, 1, 1]
    assert caplog.text.count("pycuda has no CUDA graphs, so small images are slower") == 1
    known = EngineCache(tmp_path / "cache").entries()
    gpu_names = sorted(json.loads(entry.sidecar["identity"])["gpu"] for entry in known)
    assert gpu_names == ["Fake GPU", "Other GPU"]


def test_an_engine_file_is_run_as_it_was_built(make: Make, tmp_path: Path) -> None:
    path = _engine_file(tmp_path / "made.engine")
    sidecar = path.with_name("made.engine.json")
    original = sidecar.read_text()
    sidecar.unlink()
    with pytest.raises(ModelError, match=r"made\.engine\.json: No such file"):
        make(path=path)
    sidecar.write_text(original)
    (lr,) = batches((1, 9, 9))
    with make(path=path) as backend:
        np.testing.assert_array_equal(backend.upscale(lr), repeated(lr))
        assert backend.info.largest == (9, 9)
    path.write_bytes(b"enginf")
    with pytest.raises(ModelError, match="not the engine that"):
        make(path=path)
    with pytest.raises(BackendError, match="runs on --backend trt only"):
        open_backend("ort", str(path))


def test_without_a_driver_one_line_reports_it_before_anything_large_is_loaded(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from types import SimpleNamespace; import agsr.engines.tensorrt.cuda as cuda\n"
        "def absent(name): raise OSError(name)\n"
        "cuda.ctypes = SimpleNamespace(CDLL=absent)\n"  # a machine with a GPU has a driver
        "from agsr.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'onnx', 'tensorrt', 'tensorrt_rtx'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "infer", "--backend", "trt"]
    command += [str(ROOT / "examples" / "astronaut.png"), "-o", str(tmp_path / "x.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "[]\n")  # before anything heavy is loaded
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA driver here" in done.stderr


def test_without_tensorrt_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda n, p=None: None if n.startswith('tensorrt') else find(n, p);"
        "from agsr.cli import main; main()"
    )
    photo = str(ROOT / "examples" / "astronaut.png")
    command = [sys.executable, "-c", code, "infer", photo, "--backend", "trt", "-o", "x.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "TensorRT is not installed. For an RTX GPU: pip install 'agsr[rtx]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_options_of_other_backends_are_refused() -> None:
    with pytest.raises(BackendError, match="--provider does not belong to the backend 'trt'"):
        open_backend("trt", provider="cpu")
    with pytest.raises(BackendError, match=r"no precision named .fp8."):
        open_backend("trt", precision="fp8")


def test_a_folder_with_the_name_of_tensorrt_is_not_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(api.MODULES, "tensorrt", "only_a_folder")
    assert find_spec("only_a_folder") is not None
    assert not api.is_installed("tensorrt")
    monkeypatch.setitem(api.MODULES, "tensorrt", "json")
    assert api.is_installed("tensorrt")
