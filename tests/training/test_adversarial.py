"""The ``gan`` stage: discriminators, objectives, and runs of a few iterations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from conftest import PHOTO, TINY, tiny_checkpoint

from agsr.cli.output.training import Limits, follow_training
from agsr.contract import SCALE
from agsr.datasets.pairs import Pair, load_pairs
from agsr.metrics.lpips import Lpips
from agsr.model.checkpoint import Checkpoint, load_checkpoint, read_tensors
from agsr.model.generator import GeneratorConfig
from agsr.model.registry import build, make_config
from agsr.training.config import STAGE_DEFAULTS, TrainConfig
from agsr.training.discriminator import Discriminator, SrganDiscriminator
from agsr.training.distributed import World
from agsr.training.launch import Sources, start_training
from agsr.training.objectives import AttentiveGanObjective
from agsr.training.schedule import supervised_steps
from agsr.training.trainer import Trainer

ALONE = World(torch.device("cpu"))
LARGEST_STATE = 16 * 2**20
GAN = TrainConfig(
    network=TINY,
    stage="gan",
    schedule="2x6@8/2",
    warmup=1,
    validate_every=3,
    adversarial_weight=0.1,
    perceptual_weight=0.1,
    bf16=False,
)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return load_pairs([PHOTO.parent], min_side=64)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Lpips:
    """LPIPS on a VGG16 with random weights: the right shapes, none of the meaning."""
    random = np.random.default_rng(0)
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    arrays = {}
    for i, (before, after) in enumerate(pairwise(widths)):
        weight = random.normal(0, (2 / 9 / before) ** 0.5, (after, before, 3, 3))
        arrays[f"conv{i}.weight"] = weight.astype(np.float16)
        arrays[f"conv{i}.bias"] = np.zeros(after, np.float16)
    for j, width in enumerate((64, 128, 256, 512, 512)):
        arrays[f"lin{j}.weight"] = np.full((1, width, 1, 1), 1 / width, np.float16)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.npz"
    np.savez(path, **arrays)
    return Lpips("vgg16", path)


def _gan_trainer(folder: Path, pairs: list[Pair], features: Lpips | None) -> Trainer:
    return Trainer(GAN, pairs, pairs, folder, init=tiny_checkpoint(), features=features)


def test_discriminator_is_seven_convolutions_with_a_probability_and_an_image() -> None:
    discriminator = Discriminator(48, width=4)
    convolutions = [m for m in discriminator.encoder if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 7
    verdict = discriminator(torch.rand(2, 3, 48, 48))
    assert verdict.reconstruction.shape == (2, 3, 48, 48)
    assert verdict.logit.shape == (2, 1)
    with pytest.raises(ValueError, match="side is 40; expected a multiple of 16"):
        Discriminator(40)


@pytest.mark.parametrize("joint", [False, True])
def test_a_detached_probability_leaves_the_encoder_alone(joint: bool) -> None:
    discriminator = Discriminator(16, width=4, joint=joint)
    discriminator(torch.rand(2, 3, 16, 16)).logit.sum().backward()
    reached = [p.grad is not None for p in discriminator.encoder.parameters()]
    assert all(reached) if joint else not any(reached)


def test_srgan_discriminator_judges_any_size() -> None:
    discriminator = SrganDiscriminator(width=4)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in discriminator.modules()) == 8
    for side in (32, 48):
        assert discriminator(torch.rand(2, 3, side, side)).shape == (2, 1)


def test_without_weights_the_gan_gradient_is_that_of_the_pixels() -> None:
    """``λ_adv = λ_p = 0`` is the printed equation (11)."""
    plain = {"adversarial_weight": 0.0, "perceptual_weight": 0.0, "step_decay": 1.0}
    objective = AttentiveGanObjective(GAN.changed(plain), ALONE, None)
    hr = torch.rand(2, 3, 32, 32)
    outputs = [torch.rand(2, 3, 32, 32, requires_grad=True) for _ in range(2)]
    objective.loss(outputs, hr, 0).backward()
    for sr in outputs:
        assert sr.grad is not None
        torch.testing.assert_close(sr.grad, (sr - hr).sign().detach() / hr.numel() / 2)


def test_the_phase_term_pulls_a_grid_flat() -> None:
    config = GAN.changed({"adversarial_weight": 0.0, "perceptual_weight": 0.0, "phase_weight": 4.0})
    objective = AttentiveGanObjective(config, ALONE, None)
    hr = torch.full((1, 3, 32, 32), 0.5)
    sr = hr.clone()
    sr[..., ::4, ::4] += 0.1  # one bright pixel in every 4x4
    sr.requires_grad_()
    objective.loss([sr], hr, 0).backward()
    assert objective.log["phase"].item() == pytest.approx(2 * 15 / 16**2 * 0.1)
    assert sr.grad is not None
    assert (sr.grad[..., ::4, ::4] > 0).all()
    assert (sr.grad[..., 1::4, 1::4] < 0).all()


def test_the_generators_step_leaves_the_discriminator_alone() -> None:
    objective = AttentiveGanObjective(GAN, ALONE, None)
    outputs = [torch.rand(2, 3, 32, 32, requires_grad=True) for _ in range(2)]
    objective.loss(outputs, torch.rand(2, 3, 32, 32), 0).backward()
    assert outputs[-1].grad is not None
    discriminator = objective.discriminator.module
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())


def test_the_discriminator_learns_to_distinguish_and_to_reconstruct() -> None:
    torch.manual_seed(0)
    objective = AttentiveGanObjective(GAN.changed({"schedule": "1x9@16/4"}), ALONE, None)
    lines = torch.arange(64) // 8 % 2
    hr = (lines[:, None] ^ lines[None, :]).float().expand(4, 3, 64, 64) * 0.6 + 0.2
    grey = [torch.full_like(hr, 0.3)]
    seen = []
    for iteration in range(60):
        objective.loss(grey, hr, iteration)
        objective.set_rate(2e-3)
        objective.update()
        seen.append({name: float(value) for name, value in objective.log.items()})
    assert seen[-1]["L_Dr"] < 0.5 * seen[0]["L_Dr"]
    assert seen[-1]["D(x)"] - seen[-1]["D(G(z))"] > 0.2 > seen[0]["D(x)"] - seen[0]["D(G(z))"]
    terms = {"l1", "colour", "phase", "L_Dr", "L_Df", "k", "convergence", "D(x)", "D(G(z))"}
    assert set(seen[-1]) == terms


def test_the_costly_terms_see_every_step_in_turn() -> None:
    objective = AttentiveGanObjective(GAN, ALONE, None)
    seen = []
    for iteration in range(8):
        outputs = [torch.full((1, 3, 32, 32), float(n)) for n in supervised_steps(4, iteration)]
        seen.append(int(objective._choose_output(outputs, outputs[0], iteration)[0, 0, 0, 0]))
    assert seen == [4, 1, 4, 2, 4, 3, 4, 1]


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_resumed_gan_run_equals_an_unbroken_one(
    tmp_path: Path, pairs: list[Pair], features: Lpips, stop_after: int
) -> None:
    for _ in _gan_trainer(tmp_path / "whole", pairs, features).run(report_every=1):
        pass
    first = _gan_trainer(tmp_path / "parts", pairs, features)
    for progress in first.run(report_every=1):
        if progress.iteration >= stop_after:
            first.stop()
    second = _gan_trainer(tmp_path / "parts", pairs, features)
    second.restore()
    for _ in second.run(report_every=1):
        pass
    whole, parts = (
        read_tensors(tmp_path / run / "state.safetensors") for run in ("whole", "parts")
    )
    assert whole[1] == parts[1]
    assert whole[0].keys() == parts[0].keys()
    assert all(torch.equal(whole[0][name], parts[0][name]) for name in whole[0])


def test_without_vgg16_the_stage_runs(tmp_path: Path, checkpoint_file: Path) -> None:
    sources = Sources(data=[PHOTO.parent], init=str(checkpoint_file))
    changes = {"stage": "gan", "schedule": "2x2@8/2"}
    trainer = start_training(sources, tmp_path, ALONE, changes=changes)
    reports = list(trainer.run(report_every=1))
    assert "perceptual" not in reports[-1].terms
    assert trainer.config.perceptual_weight == 0
    assert load_checkpoint(tmp_path / "best.safetensors").record["perceptual_weight"] == 0


def test_a_missing_perceptual_loss_is_reported(
    tmp_path: Path, checkpoint_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = Sources(data=[PHOTO.parent], init=str(checkpoint_file))
    changes = {"stage": "gan", "schedule": "1x1@8/1"}
    follow_training(start_training(sources, tmp_path, ALONE, changes=changes), Limits())
    assert "vgg16.npz is not there (--features)" in capsys.readouterr().err


def test_srgan_trains_in_both_stages(tmp_path: Path, pairs: list[Pair], features: Lpips) -> None:
    shape = make_config("srgan", {"width": 8, "blocks": 1})
    config = TrainConfig(
        model="srgan", network=shape, schedule="1x3@8/2", validate_every=3, bf16=False
    )
    for _ in Trainer(config, pairs, pairs, tmp_path / "psnr").run():
        pass
    init = load_checkpoint(tmp_path / "psnr" / "last.safetensors")
    weights = {"perceptual_weight": 0.1, "probability_weight": 1e-3}
    gan = Trainer(
        config.changed({"stage": "gan", **weights}),
        pairs,
        pairs,
        tmp_path / "gan",
        init=init,
        features=features,
    )
    terms = next(iter(gan.run())).terms
    assert set(terms) == {"l1", "perceptual", "colour", "phase", "D(x)", "D(G(z))"}
    made = load_checkpoint(tmp_path / "gan" / "last.safetensors")
    moved = [
        name for name in made.weights if not torch.equal(made.weights[name], init.weights[name])
    ]
    assert any("running_mean" in name for name in moved)


@pytest.mark.data
def test_real_features_and_lpips_guide_the_stage(data: Path, tmp_path: Path) -> None:
    sources = Sources(
        data=[PHOTO.parent],
        validation=[PHOTO.parent],
        init="psnr",
        features=data / "lpips" / "vgg16.npz",
        lpips=data / "lpips" / "alexnet.npz",
    )
    changes = {"stage": "gan", "schedule": "1x2@8/2", "validate_every": 1, "bf16": False}
    trainer = start_training(sources, tmp_path, ALONE, changes=changes)
    reports = list(trainer.run())
    assert reports[-1].terms["perceptual"] > 0
    lpips = [row["lpips"] for row in trainer.state.history]
    assert trainer.state.best == -min(lpips)
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best.scores["lpips"] == min(lpips)


@pytest.mark.parametrize(("model", "stage"), [("agsr", "psnr"), ("agsr", "gan"), ("srcnn", "psnr")])
def test_states_stay_small(tmp_path: Path, model: str, stage: str) -> None:
    """A training state of the default network goes through a transfer limit of 16 MiB."""
    config = TrainConfig().changed(
        {"model": model, "stage": stage, **STAGE_DEFAULTS[model, stage]}  # type: ignore[index]
    )
    trainer = Trainer(config, [_blank(512)], [], tmp_path, init=_fresh(config))
    trainer.save()
    assert (tmp_path / "state.safetensors").stat().st_size < LARGEST_STATE


def test_every_stage_has_defaults_that_make_a_configuration() -> None:
    for (model, stage), values in STAGE_DEFAULTS.items():
        config = TrainConfig().changed({"model": model, "stage": stage, **values})
        assert (config.model, config.stage) == (model, stage)
        assert TrainConfig.from_json(config.to_json()) == config
    assert isinstance(TrainConfig().network, GeneratorConfig)


def _blank(side: int) -> Pair:
    return Pair(
        hr=np.zeros((side, side, 3), np.uint8),
        lr=np.zeros((side // SCALE, side // SCALE, 3), np.uint8),
    )


def _fresh(config: TrainConfig) -> Checkpoint:
    weights = build(config.model, config.network).state_dict()
    return Checkpoint(model=config.model, config=config.network, weights=weights)
