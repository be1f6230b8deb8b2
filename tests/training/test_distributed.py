"""Two ranks on this machine, connected by gloo, against one.

One rank trains in this process. Two are processes: once by ``torchrun``, otherwise by its variables
alone, since the launcher loads torch, too.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import PHOTO, ROOT
from torch import Tensor

from agsr.cli import main
from agsr.model.checkpoint import load_checkpoint, read_tensors
from agsr.training.state import read_state

pytestmark = pytest.mark.slow

NETWORK = ("width=8", "growth=4", "dense_blocks=1", "mapping_width=4", "mapping_pairs=1")
LAUNCH = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d")
LAUNCH += ("--rdzv-endpoint=localhost:0",)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """In this process, as in those of the ranks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _train(folder: Path, *options: str, ranks: int, launch: bool = False) -> str:
    words = ["train", "--data", str(PHOTO.parent), "--val", str(PHOTO.parent), "--fp32"]
    words += ["-o", str(folder), *options]
    if launch:
        return _finish([_start([*LAUNCH, "-m", "agsr", *words], {})])
    if ranks > 1:
        return _finish([_start(["-m", "agsr", *words], place) for place in _places(ranks)])
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.stderr


def _places(ranks: int) -> list[dict[str, str]]:
    """The variables by which ``torchrun`` tells processes who they are."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    return [common | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(ranks)]


def _start(arguments: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def _finish(processes: list[subprocess.Popen[str]]) -> str:
    """What they say, if they all succeed."""
    messages = "".join(process.communicate()[1] for process in processes)
    assert not any(process.returncode for process in processes), messages
    return messages


def _fresh(folder: Path, *options: str, ranks: int, launch: bool = False) -> str:
    shape = [word for setting in NETWORK for word in ("--set", setting)]
    schedule = ("--schedule", "1x20@8/4,2x20@8/4", "--set", "validate_every=20")
    return _train(folder, *shape, *schedule, *options, ranks=ranks, launch=launch)


def _distance(a: Path, b: Path) -> float:
    first, second = (load_checkpoint(f / "last.safetensors").weights for f in (a, b))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    _fresh(folder, ranks=1)
    return folder


def test_two_ranks_train_as_one_with_the_doubled_batch(one: Path, tmp_path: Path) -> None:
    messages = _fresh(tmp_path / "two", ranks=2, launch=True)
    assert _distance(one, tmp_path / "two") < 1e-5
    assert messages.count("finished: 40 of 40") == 1  # one rank reports
    assert len(list((tmp_path / "two" / "tensorboard").glob("events.*"))) == 1
    histories = [read_state(folder)[0].history for folder in (one, tmp_path / "two")]
    assert [row["patches"] for row in histories[1]] == [80, 160]
    for a, b in zip(*histories, strict=True):
        assert a["psnr_y"] == pytest.approx(b["psnr_y"], abs=1e-3)


def test_a_run_continues_with_another_number_of_ranks(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _fresh(folder, "--minutes", "0", ranks=2)
    begun = read_state(folder)[0].iteration
    assert 0 < begun < 40
    _train(folder, "--resume", "--minutes", "0", ranks=1)
    assert read_state(folder)[0].iteration == begun + 1
    _train(folder, "--resume", ranks=2)
    assert _distance(one, folder) < 1e-5


def test_the_gan_stage_trains_on_two_ranks_as_on_one(one: Path, tmp_path: Path) -> None:
    options = ("--stage", "gan", "--init", str(one / "last.safetensors"), "--schedule", "2x6@8/4")
    options += ("--set", "perceptual_weight=0", "--set", "warmup=1", "--set", "critic_rate=1e-3")
    options += ("--set", "gamma=2", "--set", "balance_rate=0.5")  # so that k moves
    for name, ranks, seed in (("one", 1, 0), ("two", 2, 0), ("other", 1, 1)):
        _train(tmp_path / name, *options, "--seed", str(seed), ranks=ranks)
    names = ("one", "two", "other")
    one_rank, two_ranks, other = (
        read_tensors(tmp_path / name / "state.safetensors")[0] for name in names
    )
    moved = [name for name in one_rank if "model." in name]

    def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        return max(float((a[name] - b[name]).abs().max()) for name in moved)

    assert distance(one_rank, two_ranks) < 1e-5 < 1e-4 < distance(one_rank, other)
    assert 0 < one_rank["critic.k"] < 1
    torch.testing.assert_close(one_rank["critic.k"], two_ranks["critic.k"], atol=1e-4, rtol=0)


def test_a_batch_that_ranks_cannot_share_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="2 ranks can't share 3 patches"):
        _train(tmp_path, "--schedule", "1x5@8/3", ranks=2)
