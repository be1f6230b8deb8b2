"""The cache of compiled networks: with a stand-in for the runtime, and with OpenVINO itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import BF16_BY_OPENVINO, NEEDS_OPENVINO

from agsr.cli import main
from agsr.engines.runtimes import compiled_cache
from agsr.engines.runtimes.compiled_cache import CompiledCache
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
from agsr.errors import BackendError
from agsr.export.verify import sample_batch
from agsr.system.control_groups import usable_cpus

FACTS = {"onnx": "00" * 32, "version": "1"}

pytestmark = pytest.mark.processor


class Runtime:
    """Compiles into a folder where there is none yet, as OpenVINO does."""

    def __init__(self, fails_in: str = "") -> None:
        self.compiled = 0
        self._fails_in = fails_in

    def __call__(self, folder: Path | None) -> str:
        if folder is None:
            return "without"
        if self._fails_in and self._fails_in in str(folder):
            raise BackendError("can't use this folder")
        blob = folder / "1.blob"
        if blob.exists():
            return f"found {blob.read_text()}"
        self.compiled += 1
        blob.write_text(f"network {self.compiled}")
        blob.chmod(0o440)
        return "compiled"


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path)


def _blob(cache: CompiledCache) -> Path:
    (blob,) = cache.folder.glob("*/*.blob")
    return blob


def test_a_network_is_compiled_once(cache: CompiledCache) -> None:
    runtime = Runtime()
    assert cache.get(FACTS, runtime) == "compiled"
    assert cache.get(FACTS, runtime) == "found network 1"
    assert cache.get({**FACTS, "version": "2"}, runtime) == "compiled"
    assert cache.get(FACTS, runtime) == "found network 1"
    assert not list(cache.folder.glob(".part-*"))


@pytest.mark.parametrize("content", ["", "network 2", "network 10", None])
def test_what_is_not_as_it_was_written_is_compiled_again(
    cache: CompiledCache, content: str | None
) -> None:
    runtime = Runtime()
    cache.get(FACTS, runtime)
    blob = _blob(cache)
    blob.unlink()
    if content is not None:
        blob.write_text(content)
    assert [entry.sound for entry in cache.entries()] == [False]
    assert cache.get(FACTS, runtime) == "compiled"
    assert cache.get(FACTS, runtime) == "found network 2"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "agsr-compiled-1"}'])
def test_damaged_manifests_are_ignored(cache: CompiledCache, content: str) -> None:
    runtime = Runtime()
    cache.get(FACTS, runtime)
    (_blob(cache).parent / "seal.json").write_text(content)
    assert cache.get(FACTS, runtime) == "compiled"


def test_a_foreign_file_beside_it_is_not_trusted(cache: CompiledCache) -> None:
    runtime = Runtime()
    cache.get(FACTS, runtime)
    (_blob(cache).parent / "2.blob").write_text("planted")
    assert cache.get(FACTS, runtime) == "compiled"


def test_the_folder_is_private_or_not_used(cache: CompiledCache) -> None:
    runtime = Runtime()
    cache.get(FACTS, runtime)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    cache.folder.chmod(0o777)
    assert cache.get(FACTS, runtime) == "without"


def test_without_a_folder_it_runs_as_well(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert CompiledCache(tmp_path / "file").get(FACTS, Runtime()) == "without"


def test_a_runtime_that_cannot_use_the_folder_does_without(cache: CompiledCache) -> None:
    assert cache.get(FACTS, Runtime(fails_in=".part-")) == "without"
    assert list(cache.entries()) == []
    cache.get(FACTS, Runtime())
    assert cache.get(FACTS, Runtime(fails_in="compiled")) == "without"


def test_a_runtime_that_writes_nothing_leaves_nothing(cache: CompiledCache) -> None:
    assert cache.get(FACTS, str) != ""
    assert list(cache.folder.iterdir()) == []


def test_the_entry_unused_for_longest_is_evicted(
    cache: CompiledCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_cache, "MAX_ENTRIES", 2)
    runtime = Runtime()
    for number in range(3):
        cache.get({"number": number}, runtime)
        for entry in cache.folder.iterdir():
            state = entry.stat()
            os.utime(entry, (state.st_atime - 100, state.st_mtime - 100))
        if number == 1:
            assert cache.get({"number": 0}, runtime) == "found network 1"
    assert {entry.facts["number"] for entry in cache.entries()} == {0, 2}


def test_what_a_killed_start_left_is_removed_after_a_day(cache: CompiledCache) -> None:
    cache.get(FACTS, Runtime())
    for name, days in ((".part-old", 2), (".part-new", 0.5)):
        part = cache.folder / name
        part.mkdir()
        (part / "1.blob").touch()
        os.utime(part, (time.time() - days * 86_400,) * 2)
    cache.get({**FACTS, "version": "2"}, Runtime())
    assert [part.name for part in cache.folder.glob(".part-*")] == [".part-new"]
    assert [entry.sound for entry in cache.entries()] == [True, True]


def test_list_and_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path))
    run = CliRunner()
    assert "0 compiled networks" in run.invoke(main, ["cache", "list"]).stdout
    CompiledCache().get(FACTS, Runtime())
    CompiledCache().get({**FACTS, "processor": "[bold]"}, Runtime())
    shown = run.invoke(main, ["cache", "list"]).stdout
    assert "2 compiled networks" in shown
    assert "[bold]" in shown
    entries = json.loads(run.invoke(main, ["cache", "list", "--json"]).stdout)
    assert [(entry["kind"], entry["sound"]) for entry in entries] == [("compiled", True)] * 2
    (tmp_path / "timings.json").touch()
    assert "freed" in run.invoke(main, ["cache", "clear"]).stdout
    assert list(CompiledCache().entries()) == []
    assert not (tmp_path / "timings.json").exists()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompiledCache:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    return CompiledCache()


@NEEDS_OPENVINO
def test_openvino_reuses_what_it_has_compiled(
    onnx_file: Callable[[int], Path], own_cache: CompiledCache
) -> None:
    lr = sample_batch(1, 21, 30)
    first = OpenVinoBackend(onnx_file(2)).upscale(lr)
    blob = _blob(own_cache)
    written = blob.stat().st_mtime_ns
    np.testing.assert_array_equal(OpenVinoBackend(onnx_file(2)).upscale(lr), first)
    assert _blob(own_cache).stat().st_mtime_ns == written
    assert [entry.sound for entry in own_cache.entries()] == [True]
    OpenVinoBackend(onnx_file(2), threads=1)
    OpenVinoBackend(onnx_file(1))
    one_cpu = usable_cpus() == 1  # where one thread is what it runs anyway
    assert len(list(own_cache.entries())) == (2 if one_cpu else 3)


@BF16_BY_OPENVINO
def test_each_precision_has_an_entry(
    onnx_file: Callable[[int], Path], own_cache: CompiledCache
) -> None:
    for precision in ("fp32", "bf16", "bf16"):
        OpenVinoBackend(onnx_file(1), precision=precision)
    hints = [entry.facts["options"]["INFERENCE_PRECISION_HINT"] for entry in own_cache.entries()]
    assert sorted(hints) == ["bf16", "f32"]


@NEEDS_OPENVINO
def test_a_bit_that_flipped_on_disk_is_no_wrong_picture(
    onnx_file: Callable[[int], Path], own_cache: CompiledCache
) -> None:
    lr = sample_batch(1, 21, 30)
    first = OpenVinoBackend(onnx_file(2)).upscale(lr)
    blob = _blob(own_cache)
    content = bytearray(blob.read_bytes())
    for place in range(len(content) // 3, len(content), 1000):
        content[place] ^= 0x40
    blob.unlink()
    blob.write_bytes(content)
    again = OpenVinoBackend(onnx_file(2)).upscale(lr)
    np.testing.assert_array_equal(again, first)


TWO = """
import sys
from pathlib import Path
from agsr.engines.runtimes.openvino_backend import OpenVinoBackend
print(OpenVinoBackend(Path(sys.argv[1])).info.name)
"""


@NEEDS_OPENVINO
def test_two_processes_may_compile_at_the_same_time(
    onnx_file: Callable[[int], Path], own_cache: CompiledCache
) -> None:
    command = [sys.executable, "-c", TWO, str(onnx_file(2))]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["openvino\n"] * 2
    assert [entry.sound for entry in own_cache.entries()] == [True]
    assert not list(own_cache.folder.glob(".part-*"))
