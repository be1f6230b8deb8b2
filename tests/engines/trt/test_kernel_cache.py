"""Kernels that TensorRT-RTX compiles are there again in the next process."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from conftest import disk_full_half_way
from fake_gpu import FakeCuda, FakeEngine
from fake_trt import Make, batches

from agsr.engines.tensorrt.kernel_cache import MAX_FILES, KernelFile

SHAPES = ((1, 8, 8), (1, 9, 9))


def _compiled(make: Make, engine: FakeEngine, *shapes: tuple[int, int, int]) -> int:
    """Run in a separate backend; how many kernels it had to compile."""
    before = engine.compiled
    with make(flavour="tensorrt-rtx") as backend:
        list(backend.upscale_many(batches(*shapes)))
    return engine.compiled - before


def _file(folder: Path) -> Path:
    (path,) = (folder / "cache" / "engines").glob("*.kernels")
    return path


def test_kernels_are_compiled_once(make: Make, engine: FakeEngine, tmp_path: Path) -> None:
    assert _compiled(make, engine, *SHAPES) == 2
    path = _file(tmp_path)
    inode, content = path.stat().st_ino, path.read_bytes()
    assert _compiled(make, engine, *SHAPES) == 0
    assert path.stat().st_ino == inode  # nothing new, so it is not written again
    assert _compiled(make, engine, *SHAPES, (1, 10, 10)) == 1
    assert _compiled(make, engine, *SHAPES, (1, 10, 10)) == 0
    assert path.read_bytes() != content


def test_kernels_of_another_gpu_are_not_used(
    make: Make, engine: FakeEngine, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _compiled(make, engine, *SHAPES) == 2
    monkeypatch.setattr(cuda, "gpu", "another", raising=False)
    assert _compiled(make, engine, *SHAPES) == 2


@pytest.mark.parametrize("damage", ["flipped", "shortened", "emptied"])
def test_damaged_kernels_are_compiled_again(
    make: Make, engine: FakeEngine, tmp_path: Path, damage: str
) -> None:
    _compiled(make, engine, *SHAPES)
    path = _file(tmp_path)
    content = path.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"flipped": flipped, "shortened": content[:-3], "emptied": b""}[damage])
    assert _compiled(make, engine, *SHAPES) == 2
    assert engine.kernels is not None
    assert not engine.kernels.read
    assert path.read_bytes() == content


def test_kernels_that_tensorrt_refuses_are_compiled_again(
    make: Make, engine: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _compiled(make, engine, *SHAPES)
    path = _file(tmp_path)
    KernelFile(path.parent, {}).save(b"of another version")
    next(p for p in path.parent.glob("*.kernels") if p != path).replace(path)
    assert _compiled(make, engine, *SHAPES) == 2
    assert "unusable here; ignored" in caplog.text
    assert _compiled(make, engine, *SHAPES) == 0


def test_without_a_usable_folder_everything_runs(
    make: Make, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KernelFile(tmp_path / "open", {})
    (tmp_path / "open").mkdir()
    file.save(b"kernels")
    assert file.load() == b"kernels"
    (tmp_path / "open").chmod(0o777)
    assert file.load() == b""
    make(flavour="tensorrt-rtx").close()  # the engine is built
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full_half_way)
        assert _compiled(make, engine, *SHAPES) == 2
    assert not list((tmp_path / "cache" / "engines").glob("*.kernels*"))


def test_kernels_in_a_read_only_cache_are_used(
    make: Make, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _compiled(make, engine, *SHAPES) == 2

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("agsr.engines.tensorrt.kernel_cache.os.utime", refuse)
    assert _compiled(make, engine, *SHAPES) == 0


def test_the_oldest_are_evicted(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    files = [KernelFile(folder, {"number": str(number)}) for number in range(MAX_FILES)]
    for number, file in enumerate(files):
        file.save(b"kernels")
        os.utime(file.path, (number, number))
    assert files[0].load() == b"kernels"  # and so is used again
    KernelFile(folder, {"number": "new"}).save(b"kernels")
    assert [file.path.exists() for file in files[:3]] == [True, False, True]
    assert len(list(folder.glob("*"))) == MAX_FILES
