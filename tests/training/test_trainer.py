from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import PHOTO
from training_runs import ALONE, SHORT, WIDE, equal, run, weights

from agsr.datasets.pairs import Pair, load_pairs
from agsr.errors import CheckpointError, TrainingError
from agsr.model.checkpoint import load_checkpoint
from agsr.model.generator import GeneratorConfig
from agsr.training.config import TrainConfig
from agsr.training.distributed import join_world
from agsr.training.launch import Sources, start_training
from agsr.training.trainer import Trainer


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return load_pairs([PHOTO.parent], min_side=64)


def test_a_seed_fixes_the_weights(tmp_path: Path, pairs: list[Pair]) -> None:
    run(tmp_path / "a", pairs)
    run(tmp_path / "b", pairs)
    run(tmp_path / "c", pairs, TrainConfig(**{**vars(SHORT), "seed": 1}))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adam"}, {"pixel_loss": "l2"}, {"degradation": "photo"}]
)
def test_what_is_chosen_changes_the_run(
    tmp_path: Path, pairs: list[Pair], changes: dict[str, str]
) -> None:
    run(tmp_path / "usual", pairs)
    run(tmp_path / "other", pairs, SHORT.changed(changes))
    assert not equal(weights(tmp_path / "usual"), weights(tmp_path / "other"))


def test_every_phase_is_validated_at_its_steps(tmp_path: Path, pairs: list[Pair]) -> None:
    trainer = run(tmp_path, pairs)
    rows = [(row["iteration"], row["patches"], row["steps"]) for row in trainer.state.history]
    assert rows == [(4, 16, 1), (8, 28, 3), (12, 36, 3)]
    assert set(trainer.state.scores["psnr_y"]) == {"1", "2", "3"}
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best.config == WIDE
    assert best.record["schedule"] == SHORT.schedule
    assert best.record["images"] == len(pairs)
    last_phase = [row["psnr_y"]["3"] for row in trainer.state.history[1:]]
    assert max(last_phase) == trainer.state.best


def test_a_new_phase_starts_a_new_choice_of_the_best(
    tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase with more steps starts below its predecessor; its weights are the ones wanted."""
    falling = iter(range(1000, 0, -1))
    monkeypatch.setattr("agsr.training.evaluation.decibels", lambda _: next(falling))
    config = TrainConfig(**{**vars(SHORT), "validate_every": 3})
    run(tmp_path, pairs, config)
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best.record["iteration"] == 9  # the first validation in the second phase


def test_a_diverged_run_preserves_its_last_finite_state(tmp_path: Path, pairs: list[Pair]) -> None:
    trainer = Trainer(SHORT, pairs, pairs, tmp_path)
    for progress in trainer.run(report_every=1):
        if progress.iteration == 5:
            break
    trainer.save()
    good = (tmp_path / "state.safetensors").read_bytes()
    with torch.no_grad():
        trainer.network.get_parameter("upsample.bias").fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not finite at iteration .*--resume --rate"):
        for _ in trainer.run(report_every=1):
            pass
    assert (tmp_path / "state.safetensors").read_bytes() == good


def test_resuming_with_other_images_is_an_error(tmp_path: Path, pairs: list[Pair]) -> None:
    run(tmp_path, pairs)
    other = Trainer(SHORT, [*pairs, *pairs], pairs, tmp_path)
    with pytest.raises(TrainingError, match="trained on other images"):
        other.restore()


def test_every_validation_is_reported(tmp_path: Path, pairs: list[Pair]) -> None:
    config = TrainConfig(**{**vars(SHORT), "validate_every": 5})
    reports = list(Trainer(config, pairs, pairs, tmp_path).run(report_every=100))
    assert [report.iteration for report in reports] == [5, 10, 12]
    assert len({tuple(report.scores["psnr_y"].values()) for report in reports}) == 3


def test_minutes_end_a_slice(tmp_path: Path, pairs: list[Pair]) -> None:
    trainer = Trainer(SHORT, pairs, [], tmp_path)
    for _ in trainer.run(minutes=0, report_every=1):
        pass
    assert trainer.state.iteration == 1
    assert (tmp_path / "state.safetensors").exists()


def test_the_callers_mistakes_are_explained(tmp_path: Path, checkpoint_file: Path) -> None:
    sources, folder = Sources(data=[PHOTO.parent], init=str(checkpoint_file)), tmp_path / "run"
    fresh = Sources(data=[PHOTO.parent])
    for changes, message in (
        ({"schedule": "many"}, "is not of the form STEPSxITERATIONS"),
        ({"clip_norm": -1}, "clip_norm is -1"),
        ({"clip_norm": "much"}, "clip_norm is 'much'; expected a value like 1.0"),
        ({"deep": 3}, "agsr has no deep; known: width, "),
        ({"width": 0}, "width is 0"),
        ({"model": "edsr"}, "no network named 'edsr'"),
        ({"stage": "gna"}, "stage is 'gna'"),
        ({"stage": "gan"}, "starts from trained weights; give them with --init"),
        ({"schedule": "17x9"}, "agsr supports 1 to 16"),
        ({"model": "srcnn", "schedule": "4x9"}, "1: it has no loop"),
    ):
        with pytest.raises(TrainingError, match=re.escape(message)):
            start_training(fresh, folder, ALONE, changes=changes)
    for changes, message in (
        ({"model": "srgan"}, "belong to the model agsr"),
        ({"width": 16}, "have another shape"),
        ({"stage": "gan", "schedule": "1x9@8/1,1x9@12/1"}, "needs the same crop"),
        ({"stage": "gan", "schedule": "1x9@7/1"}, "side is 28; expected a multiple of 16"),
    ):
        with pytest.raises(TrainingError, match=message):
            start_training(sources, folder, ALONE, changes=changes)
    with pytest.raises(CheckpointError, match="no such file"):
        start_training(fresh, folder, ALONE, resume=True)
    with pytest.raises(TrainingError, match="can't use the device 'warp'"), join_world("warp"):
        pass
    folder.mkdir()
    (folder / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(TrainingError, match="--resume"):
        start_training(fresh, folder, ALONE)
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        start_training(fresh, folder, ALONE, resume=True)


def test_a_run_can_begin_with_trained_weights(tmp_path: Path, checkpoint_file: Path) -> None:
    sources = Sources(data=[PHOTO.parent], init=str(checkpoint_file))
    changes = {"schedule": "1x1@8/1", "peak_rate": 1e-9, "final_rate": 0.0}
    trainer = start_training(sources, tmp_path, ALONE, changes=changes)
    given = load_checkpoint(checkpoint_file)
    for _ in trainer.run():
        pass
    made = load_checkpoint(tmp_path / "last.safetensors")
    assert made.config == given.config
    assert made.record["init"] == given.weights_hash
    assert all(torch.allclose(made.weights[k], given.weights[k], atol=1e-6) for k in made.weights)


def test_validation_images_are_degraded_too(tmp_path: Path) -> None:
    scores = {}
    for degradation in ("bicubic", "photo", "photo"):
        trainer = start_training(
            Sources(data=[PHOTO.parent], validation=[PHOTO.parent], init="psnr"),
            tmp_path / f"{len(scores)}-{degradation}",
            ALONE,
            changes={"schedule": "1x1@8/1", "degradation": degradation, "peak_rate": 1e-9},
        )
        score = next(iter(trainer.run())).scores["psnr_y"]["1"]
        same = scores.setdefault(degradation, score)  # the same faults every time
        assert score == pytest.approx(same, abs=1e-3)
    assert scores["photo"] < scores["bicubic"] - 1


@pytest.mark.parametrize(
    ("change", "fixed"),
    [({"stage": "gan"}, "uses psnr"), ({"degradation": "photo"}, "uses bicubic")],
)
def test_what_scores_depend_on_cannot_change_within_a_run(
    tmp_path: Path, pairs: list[Pair], change: dict[str, object], fixed: str
) -> None:
    run(tmp_path, pairs)
    with pytest.raises(TrainingError, match=f"of a run can't change.*{fixed}"):
        start_training(Sources(data=[PHOTO.parent]), tmp_path, ALONE, resume=True, changes=change)


def test_training_learns_what_no_constant_can(tmp_path: Path) -> None:
    """On stripes, every constant correction of the repeated LR pixels leaves half the error."""
    y, x = np.mgrid[:128, :128]
    waves = np.stack([np.sin(x / 3), np.sin(y / 4), np.sin((x + y) / 5)], axis=2) * 100 + 128
    cv2.imwrite(str(tmp_path / "waves.png"), waves.astype(np.uint8))
    pairs = load_pairs([tmp_path], min_side=64)
    repeated = pairs[0].lr.repeat(4, axis=0).repeat(4, axis=1).astype(float)
    error = pairs[0].hr - repeated
    constant = np.abs(error - np.median(error, axis=(0, 1))).mean()
    config = TrainConfig(
        network=GeneratorConfig(
            width=16, growth=8, dense_blocks=1, mapping_width=8, mapping_pairs=1
        ),
        schedule="1x200@12/8,2x60@12/8",
        warmup=20,
        peak_rate=5e-3,
        validate_every=1000,
        bf16=False,
    )
    trainer = Trainer(config, pairs, [], tmp_path / "run")
    losses = [progress.terms["l1"] for progress in trainer.run(report_every=20)]
    assert losses[-1] < 0.25 * constant < losses[0]
