"""Training by compiled regions and from captured graphs, against training by torch's operators.

CUDA graphs need a GPU; here a recorder stands in for them, which does the recorded work again with
the very arguments it was recorded with, so whatever an iteration reads from elsewhere is stale.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
from conftest import PHOTO, TINY
from torch.utils._python_dispatch import TorchDispatchMode

import agsr.training.trainer
from agsr.datasets.pairs import Pair, load_pairs
from agsr.errors import TrainingError
from agsr.model.base import place
from agsr.model.checkpoint import Checkpoint, load_checkpoint, read_tensors
from agsr.model.generator import Generator
from agsr.model.registry import build
from agsr.training.config import STAGE_DEFAULTS, TrainConfig
from agsr.training.step.kernels import Kernels, Launcher
from agsr.training.step.optimizer import MIN_CHANNELS, Optimizer
from agsr.training.trainer import Trainer

CPU = torch.device("cpu")
WIDE = replace(TINY, width=MIN_CHANNELS, growth=MIN_CHANNELS)  # for Muon to have a part
SHORT = TrainConfig(network=WIDE, schedule="1x5@8/2,3x14@8/4", warmup=2, bf16=False)
ADVERSARIAL = SHORT.changed(
    {**STAGE_DEFAULTS["agsr", "gan"], "schedule": "2x12@8/2", "perceptual_weight": 0.0}
).changed({"stage": "gan"})


class Again:
    """Records work as itself."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return load_pairs([PHOTO.parent], min_side=64)


def _run(
    folder: Path, pairs: list[Pair], config: TrainConfig, kernels: Kernels = "eager"
) -> dict[str, torch.Tensor]:
    weights = build(config.model, config.network).state_dict()
    init = Checkpoint(model=config.model, config=config.network, weights=weights)
    trainer = Trainer(
        config, pairs, [], folder, kernels=kernels, init=init if config.stage == "gan" else None
    )
    list(trainer.run())
    return read_tensors(folder / "state.safetensors")[0]


@pytest.mark.parametrize("changes", [{}, {"degradation": "photo"}, {"optimizer": "adam"}])
def test_replayed_iterations_read_nothing_but_what_was_sent(
    tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    config = SHORT.changed(changes)
    eager = _run(tmp_path / "eager", pairs, config)
    recorder = Again()
    monkeypatch.setattr(agsr.training.trainer, "Launcher", partial(Launcher, recorder=recorder))
    replayed = _run(tmp_path / "graph", pairs, config, "graph")
    assert all(torch.equal(eager[name], replayed[name]) for name in eager)
    assert recorder.recorded == 3  # one step; the first and the second of three supervised
    assert recorder.replayed == 3 + 14 - 2 * 2


def test_replayed_iterations_of_the_gan_stage_look_at_the_outputs_in_turn(
    tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    eager = _run(tmp_path / "eager", pairs, ADVERSARIAL)
    recorder = Again()
    monkeypatch.setattr(agsr.training.trainer, "Launcher", partial(Launcher, recorder=recorder))
    torch.manual_seed(0)
    replayed = _run(tmp_path / "graph", pairs, ADVERSARIAL, "graph")
    assert all(torch.equal(eager[name], replayed[name]) for name in eager)
    assert recorder.recorded == 2
    assert recorder.replayed == 12 - 2 * 2


def test_the_fastest_mode_is_chosen_and_a_broken_one_dropped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand so on")

    recorder = Again()
    monkeypatch.setattr(recorder, "record", broken)
    monkeypatch.setattr("agsr.training.step.kernels.compile_regions", lambda _: None)
    launcher = Launcher("auto", Generator(WIDE), CPU, recorder=recorder)
    done = 0

    def work() -> None:
        nonlocal done
        done += 1

    with caplog.at_level(logging.WARNING):
        for _ in range(60):
            launcher.run("phase", "kind", work, period=2)
    assert done == 60  # whatever failed was done another way
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith(
        "kernels: graph does not work here: operation not permitted when stream"
    )
    assert messages[1].startswith("kernels: compiled-graph does not work here")
    assert messages[2].startswith(("kernels: eager (", "kernels: compiled ("))
    assert len(messages) == 3


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of dynamo, on inputs
def test_regions_are_compiled_once_for_all_pairs_of_steps(
    tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = torch._dynamo.testing.CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    config = SHORT.changed({"schedule": "2x3@8/2,4x7@8/2"})
    compiled = _run(tmp_path / "compiled", pairs, config, "compiled")
    # The step for its first inputs, without gradients, and for all others; the way to the image.
    assert counter.frame_count == 3
    eager = _run(tmp_path / "eager", pairs, config)
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-5, rtol=1e-3)
    names = load_checkpoint(tmp_path / "compiled" / "last.safetensors").weights.keys()
    assert names == build("agsr", WIDE).state_dict().keys()


def test_modes_that_a_device_lacks_are_rejected() -> None:
    with pytest.raises(TrainingError, match="needs CUDA graphs; choose a GPU with --device cuda"):
        Launcher("compiled-graph", Generator(WIDE), CPU)
    with pytest.raises(TrainingError, match="--kernels auto is for one rank"):
        Launcher("auto", Generator(WIDE), CPU, ranks=2)
    with pytest.raises(TrainingError, match="is for one rank, found 2"):
        Launcher("graph", Generator(WIDE), CPU, ranks=2, recorder=Again())


class _Calls(TorchDispatchMode):
    """Counts what may launch a kernel: all calls but views."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_an_optimizer_step_makes_few_calls() -> None:
    """torch's own Muon takes 491 for the default network."""
    network = place(Generator(), CPU)
    parameters = dict(network.named_parameters())
    optimizer = Optimizer(parameters, muon=True, betas=(0.9, 0.99))
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes Adam's moments
    with _Calls() as calls:
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
    assert 50 < calls.count <= 250
