"""Bounded memory: free memory is measured, and results that don't fit are rejected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tifffile
from conftest import PYTHONPATH, Repeat
from PIL import Image

from agsr.engines import preflight
from agsr.engines.batch.plan import plan
from agsr.engines.batch.runner import InferOptions, process
from agsr.engines.upscaler import Upscaler
from agsr.errors import ImageError
from agsr.image.encode import FORMATS
from agsr.image.picture import Picture, as_row_bands
from agsr.system.memory import free_memory, group_limits


def test_free_memory_is_the_minimum_of_psutil_and_the_control_groups() -> None:
    expected = min([psutil.virtual_memory().available, *group_limits()])
    assert free_memory() == pytest.approx(expected, rel=0.2)


def _files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_control_groups_are_found(tmp_path: Path) -> None:
    second = _files(
        tmp_path / "v2",
        {
            "proc/self/cgroup": "0::/user/agsr\n",
            "sys/fs/cgroup/user/memory.max": "900\n",
            "sys/fs/cgroup/user/memory.current": "400\n",
            "sys/fs/cgroup/user/memory.stat": "anon 300\ninactive_file 100\n",
            "sys/fs/cgroup/user/agsr/memory.max": "max\n",
            "sys/fs/cgroup/user/agsr/memory.current": "400\n",
            "sys/fs/cgroup/user/agsr/memory.stat": "inactive_file 100\n",
        },
    )
    assert list(group_limits(second)) == [600]
    memory = "sys/fs/cgroup/memory/"
    first = _files(
        tmp_path / "v1",
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/not/seen/in/a/container\n",
            f"{memory}memory.limit_in_bytes": "5000",
            f"{memory}memory.usage_in_bytes": "1000",
            f"{memory}memory.stat": "total_inactive_file 10",
        },
    )
    assert list(group_limits(first)) == [4010]
    (first / memory / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert list(group_limits(first)) == []
    assert list(group_limits(tmp_path / "elsewhere")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_of_the_address_space_counts() -> None:
    code = (
        "import resource, psutil\n"
        "from agsr.system.memory import free_memory\n"
        "limit = psutil.Process().memory_info().vms + (100 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 60 << 20 < int(done.stdout) <= 100 << 20
    assert free_memory() > 0


def test_results_without_room_are_rejected_before_they_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (2000, 2000)).save(tmp_path / "a.png")
    monkeypatch.setattr(preflight, "free_memory", lambda: 150 << 20)
    backend = Repeat()
    (outcome,) = process(
        Upscaler(backend=backend), plan([tmp_path / "a.png"], tmp_path / "b.jpg"), InferOptions()
    )
    assert outcome.error is not None
    for part in ("8000x8000", " bytes of memory as JPEG", f"{150 << 20} are free", "PNG or TIFF"):
        assert part in outcome.error
    assert not backend.shapes


def test_memory_is_asked_for_again_once_the_last_results_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row_bands = as_row_bands(Picture(np.zeros((8000, 8000), np.uint8)))
    free = [0]
    monkeypatch.setattr(preflight, "free_memory", lambda: free[0])
    preflight.check_memory(
        "a", ".bmp", row_bands, lambda: free.append(free.pop() + (1 << 40)), scale=4
    )
    free[0] = 0
    with pytest.raises(ImageError, match="0 are free"):
        preflight.check_memory("a", ".webp", row_bands, scale=4)
    preflight.check_memory(
        "a", ".webp", as_row_bands(Picture(np.zeros((99, 99), np.uint8))), scale=4
    )


def test_full_disks_are_reported_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row_bands = as_row_bands(Picture(np.zeros((1000, 1000, 3), np.uint16)))
    target = tmp_path / "to" / "be" / "a.png"
    for free, kind in ((1 << 40, None), (2_000_000, "warned"), (1000, "refused")):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        caplog.clear()
        if kind == "refused":
            with pytest.raises(ImageError, match=r"5813 bytes at least, and 1000 are free"):
                preflight.check_disk(target, ".png", row_bands)
        else:
            preflight.check_disk(target, ".png", row_bands)
            assert ("may have 3000000 bytes" in caplog.text) == (kind == "warned")
    assert FORMATS[".bmp"].stored_bytes(row_bands) == 3_000_000


LIMITED = """
import resource, sys, psutil
from pathlib import Path
import cv2
from PIL import Image
from stubs import Repeat
from agsr.engines.batch.plan import plan
from agsr.engines.batch.runner import InferOptions, process
from agsr.engines.upscaler import Upscaler
limit = psutil.Process().memory_info().vms + (110 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
source, target = map(Path, sys.argv[1:])
for outcome in process(Upscaler(backend=Repeat()), plan([source], target), InferOptions()):
    print(outcome.error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(("suffix", "kept"), [(".png", True), (".tif", True), (".jpg", False)])
def test_a_result_larger_than_the_memory_comes_out_right(
    tmp_path: Path, suffix: str, kept: bool
) -> None:
    """8000x6400x3 are 154 MB, and work at it takes more; the process may take 110."""
    row = np.arange(2000, dtype=np.uint16)[:, None] * (1, 3, 7)
    pixels = (np.arange(1600)[:, None, None] // 10 + row // 5).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    environment |= {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    target = tmp_path / f"b{suffix}"
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a.png"), str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if not kept:
        assert "8000x6400 pixels takes 2" in done.stdout
        assert "use PNG or TIFF" in done.stdout
        assert not target.exists()
        return
    assert done.stdout == "None\n", done.stdout + done.stderr
    if suffix == ".tif":
        found = tifffile.imread(target)
    else:
        with Image.open(target) as image:
            found = np.asarray(image)
    assert found.shape == (6400, 8000, 3)
    for phase in range(16):
        assert np.array_equal(found[phase // 4 :: 4, phase % 4 :: 4], pixels)
