from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from agsr.data import Pair, PatchSampler, load_pairs
from agsr.errors import DatasetError
from agsr.resize import downscale


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, side in (("a", 70), ("b", 101), ("c", 20)):
        noise = random.integers(0, 256, (side, side + 30, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.GaussianBlur(noise, (0, 0), 3))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_and_tar_give_the_same_pairs(folder: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as archive:
        for path in sorted(folder.glob("*"), reverse=True):
            if path.suffix != ".tar":
                archive.add(path, arcname=f"inner/{path.name}")
    from_folder, from_tar = load_pairs([folder], min_side=64), load_pairs([shard], min_side=64)
    assert [p.hr.shape for p in from_folder] == [(68, 100, 3), (100, 128, 3)]  # c is too small
    for a, b in zip(from_folder, from_tar, strict=True):
        assert (a.hr == b.hr).all()
        assert (a.lr == b.lr).all()
    assert (from_folder[0].lr == downscale(from_folder[0].hr)).all()


def test_channels_are_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((64, 64, 3), (0, 0, 255), np.uint8))
    assert load_pairs([tmp_path], min_side=8)[0].hr[0, 0].tolist() == [255, 0, 0]


def test_missing_empty_and_broken_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        load_pairs([tmp_path / "nowhere"], min_side=8)
    with pytest.raises(DatasetError, match="no image of at least 8"):
        load_pairs([tmp_path], min_side=8)
    shard = tmp_path / "cut.tar"
    with tarfile.open(shard, "w") as archive:
        archive.add(__file__, arcname="a.png")
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"cut\.tar"):
        load_pairs([shard], min_side=8)
    shard.unlink()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DatasetError, match="no image of at least 8"):
        load_pairs([tmp_path], min_side=8)
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"bad\.png: not an image"):
        load_pairs([tmp_path], min_side=8)


def _coordinates() -> Pair:
    """LR pixels hold their own coordinates; HR pixels those of the LR pixel that covers them."""
    y, x = np.mgrid[:40, :50].astype(np.uint8)
    lr = np.stack([y, x, y], axis=2)
    return Pair(hr=lr.repeat(4, axis=0).repeat(4, axis=1), lr=lr)


def test_patches_stay_aligned_through_every_symmetry() -> None:
    sampler = PatchSampler([_coordinates()], seed=1)
    lr, hr = sampler.batch(iteration=5, size=64, crop=6)
    assert lr.shape == (64, 6, 6, 3)
    assert hr.shape == (64, 24, 24, 3)
    assert (hr == lr.repeat(4, axis=1).repeat(4, axis=2)).all()
    directions = {
        (int(p[1, 0, 0]) - int(p[0, 0, 0]), int(p[0, 1, 0]) - int(p[0, 0, 0])) for p in lr
    }
    assert directions == {(1, 0), (-1, 0), (0, 1), (0, -1)}
    assert len({p.tobytes() for p in lr}) > 50


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    pairs = [_coordinates()]
    first = PatchSampler(pairs, seed=1).batch(7, 8, 6)[0]
    other = PatchSampler(pairs, seed=1)
    other.batch(3, 8, 6)
    assert (other.batch(7, 8, 6)[0] == first).all()
    assert (PatchSampler(pairs, seed=2).batch(7, 8, 6)[0] != first).any()


def test_batches_do_not_repeat_each_others_patches() -> None:
    lr = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    sampler = PatchSampler([Pair(hr=np.zeros((1200, 1200, 3), np.uint8), lr=lr)], seed=0)
    patches = {p.tobytes() for i in range(40) for p in sampler.batch(i, 16, 8)[0]}
    assert len(patches) > 630  # of 640; chance repeats one at most


def test_images_are_drawn_by_their_area() -> None:
    small = Pair(hr=np.zeros((64, 64, 3), np.uint8), lr=np.zeros((16, 16, 3), np.uint8))
    large = Pair(hr=np.full((128, 192, 3), 9, np.uint8), lr=np.full((32, 48, 3), 9, np.uint8))
    lr, _ = PatchSampler([small, large], seed=0).batch(0, 700, 8)
    assert (lr[:, 0, 0, 0] == 0).mean() == pytest.approx(1 / 7, abs=0.05)


def test_tar_members_are_never_written_to_disk(tmp_path: Path) -> None:
    shard = tmp_path / "evil.tar"
    _, png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    with tarfile.open(shard, "w") as archive:
        info = tarfile.TarInfo("../escaped.png")
        info.size = len(png)
        archive.addfile(info, io.BytesIO(png.tobytes()))
    assert len(load_pairs([shard], min_side=8)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["evil.tar"]
