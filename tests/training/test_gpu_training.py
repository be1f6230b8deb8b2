"""Training on a GPU: no synchronization, and graphs equal single launches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import PHOTO

from agsr.datasets.pairs import Pair, load_pairs
from agsr.model.checkpoint import Checkpoint
from agsr.model.registry import build
from agsr.training.config import STAGE_DEFAULTS, TrainConfig
from agsr.training.distributed import World
from agsr.training.schedule import learning_rate
from agsr.training.step.kernels import Kernels
from agsr.training.trainer import Trainer

pytestmark = pytest.mark.gpu

PSNR = TrainConfig(schedule="3x20@24/4", warmup=2, bf16=False)
ADVERSARIAL = PSNR.changed(
    {**STAGE_DEFAULTS["agsr", "gan"], "stage": "gan", "schedule": "2x20@24/4"}
).changed({"perceptual_weight": 0.0, "warmup": 2})
ITERATIONS = 16


@pytest.fixture(scope="module", autouse=True)
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    return torch.device("cuda")


@pytest.fixture
def errors_at_synchronisation() -> Iterator[None]:
    """Synchronization with the device raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return load_pairs([PHOTO.parent], min_side=96)


def _trainer(
    config: TrainConfig, pairs: list[Pair], folder: Path, device: torch.device, kernels: Kernels
) -> Trainer:
    torch.manual_seed(0)
    weights = build(config.model, config.network).state_dict()
    init = Checkpoint(model=config.model, config=config.network, weights=weights)
    return Trainer(config, pairs, pairs, folder, world=World(device), init=init, kernels=kernels)


@pytest.mark.parametrize("config", [PSNR, ADVERSARIAL], ids=["psnr", "gan"])
def test_an_iteration_never_synchronizes(
    tmp_path: Path,
    pairs: list[Pair],
    gpu: torch.device,
    config: TrainConfig,
    request: pytest.FixtureRequest,
) -> None:
    trainer = _trainer(config, pairs, tmp_path, gpu, "eager")
    phase = trainer.schedule.phases[0]
    trainer._iteration.run(0, phase, 1e-4)  # libraries may wait when they are loaded
    request.getfixturevalue("errors_at_synchronisation")
    for index in range(1, 9):
        rate = learning_rate(index / 20, index, peak=1e-3, final=0.0, warmup=2)
        trainer._iteration.run(index, phase, rate)
    torch.cuda.set_sync_debug_mode("default")
    terms, count = trainer._iteration.read_terms()
    assert count == 9
    assert 0 < terms["l1"] < 1


@pytest.mark.parametrize("kernels", ["graph", "compiled", "compiled-graph"])
@pytest.mark.parametrize("config", [PSNR, ADVERSARIAL], ids=["psnr", "gan"])
def test_every_mode_trains_like_single_launches(
    tmp_path: Path, pairs: list[Pair], gpu: torch.device, config: TrainConfig, kernels: Kernels
) -> None:
    """Convolutions sum in other orders, so weights differ by rounding that Adam enlarges."""
    ends = []
    for way in ("eager", kernels):
        trainer = _trainer(config, pairs, tmp_path / way, gpu, way)  # type: ignore[arg-type]
        phase = trainer.schedule.phases[0]
        for index in range(ITERATIONS):
            trainer._iteration.run(index, phase, 1e-4)
        terms, _ = trainer._iteration.read_terms()
        ends.append((terms, {k: v.clone() for k, v in trainer._iteration.average.items()}))
    (terms, average), (other_terms, other) = ends
    assert other_terms == pytest.approx(terms, rel=2e-2, abs=1e-4)
    distance = max(float((average[name] - other[name]).abs().max()) for name in average)
    assert distance < 2 * ITERATIONS * 1e-4  # the most that Adam's steps can part


def test_validation_on_the_device_gives_the_numbers_of_the_cpu(
    tmp_path: Path, pairs: list[Pair], gpu: torch.device
) -> None:
    scores = []
    for device in (gpu, torch.device("cpu")):
        trainer = _trainer(PSNR, pairs, tmp_path / device.type, device, "eager")
        trainer._validate(3)
        scores.append(trainer.state.scores["psnr_y"])
    assert scores[0] == pytest.approx(scores[1], abs=5e-3)
