"""``agsr infer`` with other projects' weights: blended tiles, grey networks, ones with alpha."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from clips import Clip, planes
from clips import make as make_clip
from PIL import Image

from agsr.cli import main

MakeFile = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGSR_CACHE", str(tmp_path / "cache"))


def _infer(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(main, ["infer", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done


def _photo(path: Path, height: int, width: int) -> Path:
    rows, columns = np.indices((height, width))
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    levels = 128 + 70 * np.sin(rows / 17)[..., None] + 40 * np.cos(columns / 9)[..., None] + noise
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def test_blended_tiles_are_warned_of_and_their_steps_reported(
    community_file: MakeFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = _photo(tmp_path / "a.png", 120, 40)
    weights = community_file("swinir")
    done = _infer(photo, "-w", weights, "--tile", 32, "--halo", 8, "-o", tmp_path / "tiled.png")
    assert caplog.text.count("tiles are blended, and the result is not exactly") == 1
    (found,) = re.findall(r"note: overlapping tiles differ by up to (\S+) levels", done.stderr)
    _infer(photo, "-w", weights, "--tile", 0, "-o", tmp_path / "whole.png")
    tiled, whole = (
        np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("tiled", "whole")
    )
    assert tiled.shape == whole.shape == (240, 80, 3)
    assert np.abs(tiled - whole).mean() <= float(found)


@pytest.mark.parametrize("name", ["compact-rgba", "compact-grey"])
def test_networks_of_other_channels_upscale_every_kind_of_file(
    community_file: MakeFile, tmp_path: Path, name: str
) -> None:
    """Alpha passes through the network apart from colour; JPEG and video have none."""
    photo = Image.open(_photo(tmp_path / "a.png", 14, 18))
    photo.save(tmp_path / "a.jpg")
    alpha = np.linspace(0, 255, 14 * 18).reshape(14, 18).astype(np.uint8)
    photo.putalpha(Image.fromarray(alpha))
    photo.save(tmp_path / "b.png")
    clip = make_clip(tmp_path / "c.mkv", Clip(width=18, height=14, frames=2))
    names = [tmp_path / "a.jpg", tmp_path / "b.png", clip]
    _infer(*names, "-w", community_file(name), "-o", f"{tmp_path / 'out'}/", "-q")
    for stem, mode in (("a", "RGB"), ("b", "RGBA")):
        with Image.open(tmp_path / "out" / f"{stem}_x4.png") as large:
            assert (large.size, large.mode) == ((72, 56), mode)
    with Image.open(tmp_path / "out" / "b_x4.png") as large:
        opacity = np.asarray(large)[..., 3].astype(int)
    assert opacity[:8].mean() < opacity[-8:].mean()
    (frame, _) = [planes(tmp_path / "out" / "c_x4.mkv", number) for number in range(2)]
    assert frame[0].shape == (56, 72)
