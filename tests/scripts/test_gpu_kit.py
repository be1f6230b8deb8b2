"""What travels to a GPU machine, and the session there, rehearsed on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import gpu_pack
import gpu_run

KIT = ROOT / "scripts" / "gpu_kit.sh"


def _file(path: Path, size: int) -> gpu_pack.Item:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return gpu_pack.Item(path, f"data/{path.name}")


def _kit(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("AGSR_DATA", None)
    command = [root / "scripts" / "gpu_kit.sh", *words]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with the kit, weights and a figure."""
    root = tmp_path / "checkout"
    for name in ("agsr/weights/psnr-4.onnx", "agsr/weights/gan-4.onnx", "docs/figures/a.png"):
        _file(root / name, 1000)
    (root / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("gpu_*"):
        (root / "scripts" / script.name).write_bytes(script.read_bytes())
        (root / "scripts" / script.name).chmod(0o755)
    (root / ".gitignore").write_text("/.kit*/\n__pycache__/\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_parts_stay_below_the_limit_and_lose_nothing(tmp_path: Path) -> None:
    items = [_file(tmp_path / f"{size}", size) for size in (50, 49, 10, 9, 2)]
    parts = gpu_pack.divide(items, 60)
    assert [[item.size for item in part] for part in parts] == [[50, 10], [49, 9, 2]]
    with pytest.raises(gpu_pack.KitError, match="divide the file, or raise --limit"):
        gpu_pack.divide(items, 49)


def test_slim_removes_what_no_stage_needs_and_restore_brings_it_back(checkout: Path) -> None:
    before = gpu_pack.travelling(checkout)
    assert gpu_pack.slim_size(checkout) == before - 2000
    assert _kit(checkout, "slim").returncode == 0
    assert gpu_pack.travelling(checkout) == before - 2000 == gpu_pack.slim_size(checkout)
    assert (checkout / "agsr/weights/psnr-4.onnx").exists()
    assert not (checkout / "agsr/weights/gan-4.onnx").exists()
    assert _kit(checkout, "restore").returncode == 0
    assert gpu_pack.git(checkout, "status", "--porcelain") == ""


def test_slim_removes_no_work(checkout: Path) -> None:
    (checkout / "docs/figures/a.png").write_bytes(b"new")
    done = _kit(checkout, "slim")
    assert done.returncode == 1
    assert "changes that are not committed" in done.stderr
    assert (checkout / "docs/figures/a.png").read_bytes() == b"new"


def test_more_than_the_limit_is_an_error(checkout: Path) -> None:
    part = checkout / ".kit" / "1"
    _file(part / "data" / "large", 3 * gpu_pack.MIB)
    assert _kit(checkout, "size", ".kit/1", "--limit", "4").returncode == 0
    done = _kit(checkout, "size", ".kit/1", "--limit", "2")
    assert done.returncode == 1
    assert "the limit is 2: run 'scripts/gpu_kit.sh slim' first" in done.stderr


def test_parts_are_put_together_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    tree, home = tmp_path / "tree", tmp_path / "home"
    for number in (1, 2):
        item = _file(tmp_path / f"{number}.tar", number)
        gpu_pack.write_part([item], tree / ".kit" / str(number))
    gpu_run.install(tree, home)
    assert sorted(path.name for path in (home / "data").iterdir()) == ["1.tar", "2.tar"]
    (tree / ".kit" / "1" / "data" / "1.tar").write_bytes(b"more than one byte")
    with pytest.raises(gpu_pack.KitError, match="has 18 bytes, expected 1"):
        gpu_run.install(tree, home)


def test_what_the_machine_lacks_is_read_from_the_two_lists() -> None:
    assert gpu_pack.missing_packages(ROOT) == ["platformdirs", "zlib-ng"]


@pytest.mark.parametrize("words", [["chekc"], ["train"], ["train", "long"], ["speed", "5"]])
def test_other_stages_are_refused(words: list[str]) -> None:
    with pytest.raises(gpu_pack.KitError, match="stages are check, speed and train MINUTES"):
        gpu_run.parse_stages(words)


def test_this_checkout_can_travel_beside_a_shard() -> None:
    """A shard of the training images has 50.2 MiB."""
    assert gpu_pack.slim_size(ROOT) < 9.5 * gpu_pack.MIB


@pytest.mark.slow
@pytest.mark.timeout(1500)  # of starting Python many times, on whatever machine
def test_a_session_on_a_gpu_machine_works_from_start_to_end(tmp_path: Path) -> None:
    """Refusals, all stages, SIGKILL and resuming elsewhere, time that runs out; what comes back."""
    done = _kit(ROOT, "rehearse", str(tmp_path / "machine"), "--short")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "#### done" in done.stdout
