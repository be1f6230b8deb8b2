from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from conftest import disk_full_half_way, tiny_checkpoint

from agsr.errors import CheckpointError
from agsr.model.checkpoint import (
    Checkpoint,
    blend,
    load_checkpoint,
    save_checkpoint,
    write_tensors,
)


def test_round_trip_preserves_everything(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    full = dataclasses.replace(
        checkpoint, record={"iteration": 7, "schedule": "1x7"}, scores={"psnr_y": {"1": 28.5}}
    )
    save_checkpoint(full, path)
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.record, loaded.scores) == (full.config, full.record, full.scores)
    assert loaded.weights_hash == checkpoint.weights_hash
    lr = torch.rand(1, 3, 8, 8)
    assert torch.equal(loaded.build()(lr, 3), checkpoint.build()(lr, 3))


def test_hash_follows_the_values(checkpoint: Checkpoint) -> None:
    weights = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
    next(iter(weights.values())).flatten()[0] += 1e-6
    assert dataclasses.replace(checkpoint, weights=weights).weights_hash != checkpoint.weights_hash


def test_damaged_and_foreign_files_are_rejected(checkpoint_file: Path, tmp_path: Path) -> None:
    content = checkpoint_file.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for damaged in (b"", content[:100], content[:-1], b"\xff" * 1000, b"PK\x03\x04" + content):
        bad.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            load_checkpoint(bad)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "absent.safetensors")
    write_tensors({"x": torch.zeros(1)}, {"format": "something-else"}, bad)
    with pytest.raises(CheckpointError, match="found format 'something-else'"):
        load_checkpoint(bad)


def test_weights_that_do_not_fit_their_config_are_rejected(checkpoint: Checkpoint) -> None:
    other = dataclasses.replace(checkpoint.config, width=16)
    with pytest.raises(CheckpointError, match="don't fit"):
        dataclasses.replace(checkpoint, config=other).build()


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "executed"),))

    path = tmp_path / "bomb.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_the_old_file(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()

    monkeypatch.setattr(Path, "write_bytes", disk_full_half_way)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(checkpoint, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_blend_lies_between_its_ends(checkpoint: Checkpoint) -> None:
    other = tiny_checkpoint(seed=1)
    assert blend(checkpoint, other, 0).weights_hash == checkpoint.weights_hash
    assert blend(checkpoint, other, 1).weights_hash == other.weights_hash
    quarter = blend(checkpoint, other, 0.25)
    for name, value in quarter.weights.items():
        expected = 0.75 * checkpoint.weights[name] + 0.25 * other.weights[name]
        torch.testing.assert_close(value, expected)
    assert quarter.record["blend"] == {checkpoint.weights_hash: 0.75, other.weights_hash: 0.25}
    assert quarter.build()(torch.rand(1, 3, 8, 8), 2).isfinite().all()


def test_only_networks_of_one_shape_are_blended(checkpoint: Checkpoint) -> None:
    wider = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, width=16))
    with pytest.raises(CheckpointError, match="the same shape"):
        blend(checkpoint, wider, 0.5)
    with pytest.raises(ValueError, match="share is 2"):
        blend(checkpoint, checkpoint, 2)
