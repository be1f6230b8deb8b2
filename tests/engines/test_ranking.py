"""What `--backend auto` takes, on machines that are played: packages, driver, processor, times."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import NEEDS_OPENVINO, PHOTO, Processor
from stubs import Repeat

from agsr.cli import main
from agsr.engines import ranking
from agsr.engines.onnx_file import inspect
from agsr.engines.open import open_backend
from agsr.engines.places import Place
from agsr.engines.ranking import candidates
from agsr.engines.runtimes.providers import PROVIDERS
from agsr.engines.runtimes.torch_backend import TorchBackend
from agsr.engines.timings import BackendTiming, Timings, machine_identity, timings_file
from agsr.engines.weights_file import check_weights_options, declared_scale
from agsr.errors import BackendError, MissingDependencyError, ModelError
from agsr.export.verify import sample_batch
from agsr.pretrained import find_onnx

pytestmark = pytest.mark.processor

ALL = ("trt", "ort:cuda", "torch:cuda", "openvino", "ort:cpu", "torch")
ON_CPU = ("openvino", "ort:cpu", "torch")

Machine = Callable[..., None]


@pytest.fixture
def machine(play_processor: Processor, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Plays a machine with these places, whose processor has bf16 units or not."""

    def play(*places: str, bf16: bool = False) -> None:
        monkeypatch.setattr(
            ranking, "missing_requirement", lambda p: "" if str(p) in places else "not here"
        )
        play_processor("avx512_vnni", *(["avx512_bf16"] if bf16 else []))

    return play


def _names(*arguments: Any, **options: Any) -> list[str]:
    return [candidate.name for candidate in candidates(*arguments, **options)]


def test_gpus_come_first_and_torch_last(machine: Machine) -> None:
    machine(*ALL)
    gpu = ["trt fp16", "ort:cuda fp32", "torch:cuda fp32"]
    assert _names("psnr") == [*gpu, "ort:cpu fp32", "openvino fp32", "torch fp32"]
    machine(*ON_CPU)
    assert _names("psnr") == ["ort:cpu fp32", "openvino fp32", "torch fp32"]
    machine("openvino", "torch")
    assert _names("psnr") == ["openvino fp32", "torch fp32"]


def test_bf16_is_chosen_where_the_processor_has_it(machine: Machine) -> None:
    machine(*ON_CPU, bf16=True)
    assert _names("psnr") == ["openvino bf16", "ort:cpu fp32", "torch bf16"]
    assert _names("psnr", "fp32") == ["ort:cpu fp32", "openvino fp32", "torch fp32"]
    assert _names("own.onnx") == ["ort:cpu", "openvino"]  # its precision is fixed


@pytest.mark.parametrize(
    ("precision", "first"), [("int8", "openvino"), ("bf16", "openvino"), ("fp32", "ort:cpu")]
)
def test_files_go_where_their_precision_gains(
    machine: Machine, tmp_path: Path, precision: str, first: str
) -> None:
    machine(*ON_CPU)
    model = onnx.load(find_onnx("psnr", 1))
    for entry in model.metadata_props:
        if entry.key == "agsr.precision":
            entry.value = precision
    onnx.save(model, tmp_path / "own.onnx")
    assert _names(str(tmp_path / "own.onnx"))[0] == first
    (tmp_path / "own.onnx").write_bytes(b"nonsense")
    assert _names(str(tmp_path / "own.onnx")) == ["ort:cpu", "openvino"]


def test_an_exported_file_is_parsed_once_until_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(find_onnx("psnr", 1).read_bytes())
    parsed: list[str] = []
    parse = inspect.parse
    monkeypatch.setattr(
        inspect, "parse", lambda content, source: parsed.append(source) or parse(content, source)
    )
    check_weights_options(str(path), None, "")
    assert declared_scale(str(path)) == 4
    assert candidates(str(path))
    assert parsed == [str(path)]


def test_int8_goes_to_openvino_before_onnx_runtime(
    machine: Machine, play_processor: Processor
) -> None:
    machine(*ON_CPU)
    assert _names("psnr", "int8")[:2] == ["openvino int8", "ort:cpu int8"]
    play_processor("avx2")
    assert _names("psnr", "int8")[0] == "ort:cpu int8"


def test_what_would_refuse_a_precision_comes_last(
    machine: Machine, play_processor: Processor, caplog: pytest.LogCaptureFixture
) -> None:
    machine(*ON_CPU)
    play_processor("avx2")
    assert _names("psnr", "bf16") == ["openvino bf16", "torch bf16", "ort:cpu bf16"]
    with open_backend("auto", "psnr", steps=1, precision="bf16") as backend:
        assert (backend.info.name, backend.info.precision) == ("openvino", "bf16")
    (record,) = caplog.records
    assert "bf16 weights run in fp32 arithmetic" in record.getMessage()


def test_timings_do_not_bring_back_what_would_refuse(
    machine: Machine, play_processor: Processor
) -> None:
    machine(*ON_CPU)
    play_processor("avx2")
    measured = _timings(ort_cpu_bf16=(0.1, 1), torch_bf16=(0.1, 90))
    assert _names("psnr", "bf16", timings=measured)[0] == "torch bf16"


def test_threads_select_backends_that_have_them(machine: Machine) -> None:
    machine(*ALL)
    assert _names("psnr", threads=1) == ["ort:cpu fp32", "openvino fp32"]


def _timings(**times: tuple[float, float]) -> Timings:
    named = {
        name.replace("_", ":", name.count("_") > 1).replace("_", " "): t
        for name, t in times.items()
    }
    return Timings(
        times={n: BackendTiming(start=s, per_megapixel=p) for n, (s, p) in named.items()},
        measured="2030-01-31",
        identity=machine_identity(),
    )


def test_what_was_measured_decides(machine: Machine) -> None:
    machine(*ALL)
    measured = _timings(openvino_fp32=(0.3, 10), ort_cpu_fp32=(0.1, 12), torch_cuda_fp32=(9, 1))
    assert _names("psnr", timings=measured)[:3] == [
        *("torch:cuda fp32", "openvino fp32", "ort:cpu fp32")
    ]
    assert _names("psnr", work=99_000, timings=measured)[0] == "ort:cpu fp32"
    assert _names("psnr", work=101_000, timings=measured)[0] == "openvino fp32"
    chosen = candidates("psnr", work=7, timings=measured)[0]
    assert chosen.reason == "fastest for 7 pixels, as measured here on 2030-01-31"


def test_unmeasured_backends_have_the_default_order_and_reason(machine: Machine) -> None:
    machine(*ON_CPU)
    measured = _timings(torch_fp32=(9, 1))
    found = candidates("psnr", timings=measured)
    assert [c.name for c in found] == ["torch fp32", "ort:cpu fp32", "openvino fp32"]
    assert ["as measured here" in c.reason for c in found] == [True, False, False]
    for weights, precision in (("own.onnx", None), ("own.onnx", "fp32"), ("psnr", "bf16")):
        others = candidates(weights, precision, timings=measured)
        assert others == candidates(weights, precision)
        assert all(c.reason.startswith("first available in the default order") for c in others)


def test_the_reason_names_why_openvino_stands_behind(machine: Machine) -> None:
    machine(*ON_CPU)
    behind = "openvino: behind ONNX Runtime"
    assert all(behind in found.reason for found in candidates("psnr", "fp32"))
    assert not any(behind in found.reason for found in candidates("psnr", "bf16"))


def test_times_are_loaded_on_the_machine_they_were_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    assert Timings.load() is None
    measured = _timings(ort_cpu_fp32=(0.1, 12))
    assert measured.save() == timings_file()
    assert Timings.load() == measured
    monkeypatch.setattr("agsr.engines.timings.processor", lambda: "another processor")
    assert Timings.load() is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": "agsr-timings-0"},
        {"times": {}},
        {"times": []},
        {"times": {"ort:cpu fp32": {"start": -1, "per_megapixel": 1}}},
        {"times": {"ort:cpu fp32": {"start": 1, "per_megapixel": float("nan")}}},
        {"times": {"ort:cpu fp32": {"start": 1, "per_megapixel": "soon"}}},
        {"times": {"ort:cpu fp32": 1}},
    ],
)
def test_damaged_times_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    path = _timings(ort_cpu_fp32=(0.1, 12)).save()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert Timings.load() is None
    path.write_text("{")
    assert Timings.load() is None


def test_auto_goes_on_to_the_next_best_with_a_warning(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine("ort:cuda", "ort:cpu")
    absent = dataclasses.replace(PROVIDERS["cuda"], ort_name="NoSuchProvider")
    monkeypatch.setitem(PROVIDERS, "cuda", absent)
    with open_backend("auto", "psnr", steps=1) as backend:
        assert backend.info.device == "CPUExecutionProvider"
        assert backend.info.reason == "the next best"
        assert backend.upscale(sample_batch(1, 4, 4)).shape == (1, 3, 16, 16)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ort:cuda fp32: provider 'cuda' is not installed" in record.message
    assert "running on ort:cpu fp32 instead" in record.message
    with pytest.raises(BackendError, match="'cuda' is not installed"):
        open_backend("ort", "psnr", provider="cuda")


@pytest.mark.parametrize(
    ("files", "lack"),
    [
        (("libtorch.so", "libtorch_cpu.so"), "torch is built without CUDA"),
        (("libtorch_cpu.so", "libtorch_cuda.so"), ""),
        (("torch_cpu.dll", "torch_cuda.dll"), ""),
        ((), ""),
    ],
)
def test_a_torch_for_the_cpu_is_no_place_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], lack: str
) -> None:
    (tmp_path / "lib").mkdir()
    for name in files:
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr(ranking, "_has_driver", lambda: True)
    spec = ModuleSpec("torch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(ranking, "find_spec", lambda _: spec)
    assert ranking.missing_requirement(Place("torch", "cuda")) == lack
    assert ranking.missing_requirement(Place("torch")) == ""


def test_a_torch_without_cuda_beside_a_driver_runs_on_the_cpu(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("torch:cuda", "torch")
    real = TorchBackend

    def without_cuda(path: Path, *, device: str, **options: Any) -> TorchBackend:
        if device == "cuda":
            raise BackendError("Torch not compiled with CUDA enabled")
        return real(path, device=device, **options)

    monkeypatch.setattr("agsr.engines.runtimes.torch_backend.TorchBackend", without_cuda)
    with open_backend("auto", "psnr", steps=1) as backend:
        assert backend.info.device == "cpu"
    assert "not compiled with CUDA enabled; running on torch fp32 instead" in caplog.text


def test_auto_without_any_runtime_lists_what_to_install(machine: Machine) -> None:
    machine()
    with pytest.raises(MissingDependencyError, match=r"pip install 'agsr\[cpu\]'"):
        open_backend("auto", "psnr")


def test_a_wrong_word_is_no_reason_to_go_on(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine(*ON_CPU)
    with pytest.raises(ModelError, match="agsr export --weights psnr --steps 9 --precision int8"):
        open_backend("auto", "psnr", steps=9, precision="int8")
    assert not caplog.records


def test_a_damaged_file_is_reported_once(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine("openvino", "ort:cpu")
    (tmp_path / "a.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"a\.onnx"):
        open_backend("auto", str(tmp_path / "a.onnx"))
    assert not caplog.records


def test_precision_auto_is_the_backends_own(
    play_processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fake(_: Path, **options: Any) -> Repeat:
        asked.append(options["precision"])
        backend = Repeat()
        backend.info = dataclasses.replace(backend.info, precision=options["precision"] or "fp32")
        return backend

    monkeypatch.setattr("agsr.engines.runtimes.openvino_backend.OpenVinoBackend", fake)
    monkeypatch.setattr("agsr.engines.runtimes.torch_backend.TorchBackend", fake)
    for feature in ("avx512_bf16", "avx2"):
        play_processor(feature)
        open_backend("openvino", "psnr", steps=1, precision="auto")
        open_backend("openvino", "psnr", steps=1)
        open_backend("torch", "psnr", precision="auto")
        open_backend("torch", "psnr", device="cuda:1", precision="auto")
    assert asked == ["bf16", None, "bf16", "fp32", "fp32", None, "fp32", "fp32"]


def test_infer_reports_what_runs_and_why(tmp_path: Path) -> None:
    arguments = ["infer", str(PHOTO), "-s", "1", "-o", str(tmp_path / "a.png")]
    result = CliRunner().invoke(main, [*arguments, "-v"])
    assert result.exit_code == 0, result.output
    assert re.search(r"(ort|openvino) \(\w+\), 1 step, (fp32|bf16), in ", result.stderr)
    quiet = CliRunner().invoke(main, arguments)
    assert quiet.stderr == ""
    explicit = CliRunner().invoke(main, [*arguments, "-v", "--provider", "cpu", "-j", "1"])
    assert "asked for" in explicit.stderr


@NEEDS_OPENVINO
@pytest.mark.usefixtures("all_cpus")
def test_openvino_in_fp32_is_onnx_runtime_at_any_size_and_number_of_threads(
    onnx_file: Callable[[int], Path],
) -> None:
    with (
        open_backend("ort", str(onnx_file(2))) as exact,
        open_backend("openvino", str(onnx_file(2)), threads=1) as one,
        open_backend("openvino", str(onnx_file(2))) as all_threads,
    ):
        for shape in ((1, 1, 1), (1, 1, 9), (3, 31, 17), (1, 64, 64), (1, 31, 17), (2, 1, 1)):
            lr = sample_batch(*shape)
            for backend in (one, all_threads):
                np.testing.assert_allclose(backend.upscale(lr), exact.upscale(lr), atol=1e-5)
