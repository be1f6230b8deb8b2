from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import HELPERS, disk_full_half_way
from engine_samples import IDENTITY, REPORT

from agsr.cli import main
from agsr.engines.tensorrt.engine_cache import EngineCache
from agsr.engines.tensorrt.options import BuildOptions, BuildReport, Profile
from agsr.errors import BackendError


class Builder:
    """Makes engines that differ, and counts them."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> tuple[bytes, BuildReport]:
        self.built += 1
        return f"engine {self.built}".encode() * 100, REPORT


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def _file(cache: EngineCache, suffix: str) -> Path:
    (path,) = cache.folder.glob(f"*{suffix}")
    return path


def test_an_engine_is_built_once(cache: EngineCache, builder: Builder) -> None:
    first, second = cache.get(IDENTITY, builder), cache.get(IDENTITY, builder)
    assert first == second
    assert first[1]["metadata"]["steps"] == 4
    assert builder.built == 1


@pytest.mark.parametrize(
    "change",
    [
        {"onnx": "11" * 32},
        {"options": BuildOptions(profiles=(Profile((1, 1, 1)),))},
        {"options": BuildOptions(level=5)},
        {"flavour": "tensorrt"},
        {"version": "1.8"},
        {"gpu": "GeForce RTX 5090"},
        {"capability": "12.0"},
        {"driver": "13.1"},
        {"builder": IDENTITY.builder - 1},
    ],
)
def test_whatever_an_engine_depends_on_makes_another(
    cache: EngineCache, builder: Builder, change: dict[str, object]
) -> None:
    cache.get(IDENTITY, builder)
    assert cache.get(replace(IDENTITY, **change), builder)[0].startswith(b"engine 2")  # type: ignore[arg-type]
    assert cache.get(IDENTITY, builder)[0].startswith(b"engine 1")


def test_damaged_engines_are_rebuilt(cache: EngineCache, builder: Builder) -> None:
    whole, _ = cache.get(IDENTITY, builder)
    for count, damage in enumerate((whole[:-1], b"", whole[:50] + b"X" + whole[51:]), 2):
        _file(cache, ".engine").write_bytes(damage)
        assert cache.get(IDENTITY, builder)[0].startswith(f"engine {count}".encode())
    _file(cache, ".engine").unlink()
    assert cache.get(IDENTITY, builder)[0].startswith(b"engine 5")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "agsr-engine-1"}'])
def test_engines_with_damaged_sidecars_are_rebuilt(
    cache: EngineCache, builder: Builder, content: str
) -> None:
    cache.get(IDENTITY, builder)
    _file(cache, ".json").write_text(content)
    assert cache.get(IDENTITY, builder)[0].startswith(b"engine 2")


def test_an_engine_under_anothers_name_is_not_run(cache: EngineCache, builder: Builder) -> None:
    cache.get(IDENTITY, builder)
    other = replace(IDENTITY, gpu="GeForce RTX 5090")
    for suffix in (".engine", ".json"):
        _file(cache, suffix).rename(cache.folder / (other.digest + suffix))
    assert cache.get(other, builder)[0].startswith(b"engine 2")


def test_a_failed_write_leaves_no_entry(
    cache: EngineCache, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full_half_way)
        with pytest.raises(OSError, match="No space left"):
            cache.get(IDENTITY, builder)
    assert list(cache.entries()) == []
    assert cache.get(IDENTITY, builder)[0].startswith(b"engine 2")


BUILD_SLOWLY = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from agsr.engines.tensorrt.engine_cache import EngineCache
from engine_samples import IDENTITY, REPORT

def build():
    with open({log!r}, "a") as log:
        log.write("built\\n")
    time.sleep(0.5)
    if {dies!r}:
        os._exit(9)
    return b"engine", REPORT

print(EngineCache(Path({folder!r})).get(IDENTITY, build)[0])
"""


def _process(tmp_path: Path, dies: bool = False) -> subprocess.Popen[str]:
    places = {"tests": str(HELPERS), "log": str(tmp_path / "log"), "folder": str(tmp_path)}
    code = BUILD_SLOWLY.format(**places, dies=dies)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_build_an_engine_once(tmp_path: Path) -> None:
    processes = [_process(tmp_path) for _ in range(2)]
    assert [p.communicate()[0] for p in processes] == ["b'engine'\n"] * 2
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_killed_build_does_not_stand_in_the_way(tmp_path: Path) -> None:
    dying = _process(tmp_path, dies=True)
    dying.communicate()
    assert dying.returncode == 9
    assert _process(tmp_path).communicate(timeout=60)[0] == "b'engine'\n"
    assert (tmp_path / "log").read_text() == "built\n" * 2


def test_engines_are_run_from_a_private_folder_only(cache: EngineCache, builder: Builder) -> None:
    cache.get(IDENTITY, builder)
    cache.folder.chmod(0o777)
    with pytest.raises(BackendError, match="compiled code is loaded only "):
        cache.get(IDENTITY, builder)


def test_list_and_clear(
    cache: EngineCache, builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))
    run = CliRunner()
    assert "0 engines" in run.invoke(main, ["cache", "list"]).stdout
    cache.get(IDENTITY, builder)
    cache.get(replace(IDENTITY, gpu="GeForce RTX 5090"), builder)
    sorted(cache.folder.glob("*.engine"))[0].write_bytes(b"damaged")
    shown = run.invoke(main, ["cache", "list"]).stdout
    assert "damaged" in shown
    assert "GeForce RTX" in shown
    assert "2 engines" in shown
    entries = json.loads(run.invoke(main, ["cache", "list", "--json"]).stdout)
    assert [entry["sound"] for entry in entries] == [False, True]
    assert "freed" in run.invoke(main, ["cache", "clear"]).stdout
    assert list(cache.entries()) == []
